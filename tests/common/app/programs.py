# SPDX-License-Identifier: MIT
"""Programs and libraries that know nothing of us, client and server in one process:

    python [-m skbus.run] programs.py NAME HOST CERT KEY TLSv1_2|TLSv1_3

prints what the client found, as a line of JSON. It must be the same on our stack and on Linux.
"""

import asyncio
import hashlib
import importlib
import json
import os
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOB = bytes(range(256)) * 4096
"""1 MB"""


def digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def make_certificate(folder: Path, *addresses: str) -> tuple[Path, Path]:
    """(certificate, key) for localhost and these addresses."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = ",".join(("DNS:localhost", *(f"IP:{address}" for address in addresses)))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
         "-addext", f"subjectAltName={names}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


class Where:
    """The address, and TLS for both ends."""

    def __init__(self, host: str, cert: str, key: str, version: str) -> None:
        self.host = host
        self.cert = cert
        self.key = key
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(cert, key)
        self.client = ssl.create_default_context(cafile=cert)
        for context in (self.server, self.client):
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]


def library(name: str) -> Any:
    """One that is looked for only where it is needed."""
    return importlib.import_module(name)


def in_thread(function: Callable[..., object], *args: Any) -> None:
    threading.Thread(target=function, args=args, daemon=True).start()


# ---- MQTT: a client that waits in select, and reads what that and pending() show --------------


def _exactly(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _packet(sock: Any) -> tuple[int, bytes]:
    """One MQTT packet: (type and flags, the rest)."""
    kind = _exactly(sock, 1)[0]
    length = shift = 0
    while True:
        byte = _exactly(sock, 1)[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return kind, _exactly(sock, length)


def _mqtt_broker(listener: Any, context: ssl.SSLContext) -> None:
    sock = context.wrap_socket(listener.accept()[0], server_side=True)
    try:
        while True:
            kind, body = _packet(sock)
            if kind >> 4 == 1:  # CONNECT -> CONNACK
                sock.sendall(b"\x20\2\0\0")
            elif kind >> 4 == 8:  # SUBSCRIBE -> SUBACK, and twenty messages, a record each
                sock.sendall(b"\x90\3" + body[:2] + b"\0")
                for n in range(20):
                    sock.sendall(b"\x30\x0a\0\1t" + b"%07d" % n)
            elif kind >> 4 == 3:  # PUBLISH: back to where it came from
                size = len(body)
                sock.sendall(bytes((0x30, size & 127 | 128, size >> 7)) + body)
            elif kind >> 4 == 14:
                return
    except (EOFError, OSError):
        pass


def paho(where: Where) -> Any:
    """paho-mqtt"""
    mqtt = library("paho.mqtt.client")

    listener = socket.create_server((where.host, 0))
    in_thread(_mqtt_broker, listener, where.server)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.tls_set_context(where.client)
    got: list[bytes] = []
    all_there = threading.Event()

    def message(_: object, __: object, item: Any) -> None:
        got.append(bytes(item.payload))
        if len(got) == 20:
            client.publish("t", BLOB[:10000])
        if len(got) == 21:
            all_there.set()

    client.on_message = message
    client.on_connect = lambda *_: client.subscribe("t")
    client.connect(where.host, listener.getsockname()[1])
    client.loop_start()
    all_there.wait(20.0)
    client.disconnect()
    client.loop_stop()
    return [got[:20] == [b"%07d" % n for n in range(20)], [digest(one) for one in got[20:]]]


# ---- Tornado, and a WebSocket client -----------------------------------------------------------


def _tornado(where: Where) -> int:
    """A server in a thread: its port."""
    httpserver = library("tornado.httpserver")
    netutil = library("tornado.netutil")
    web = library("tornado.web")

    class Page(library("tornado.web").RequestHandler):  # type: ignore[misc]
        def get(self) -> None:
            self.write(BLOB)

        def put(self) -> None:
            self.write(digest(self.request.body))

    class Echo(library("tornado.websocket").WebSocketHandler):  # type: ignore[misc]
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, binary=isinstance(message, bytes))

    app = web.Application([("/blob", Page), ("/ws", Echo)], websocket_max_message_size=1 << 22)
    ports: list[int] = []
    up = threading.Event()

    async def main() -> None:
        sockets = netutil.bind_sockets(0, where.host)
        server = httpserver.HTTPServer(app, ssl_options=where.server)
        server.add_sockets(sockets)
        ports.append(sockets[0].getsockname()[1])
        up.set()
        await asyncio.Event().wait()

    in_thread(asyncio.run, main())
    up.wait(20.0)
    return ports[0]


def tornado(where: Where) -> Any:
    """Tornado's server and client"""
    url = f"https://{where.host}:{_tornado(where)}/blob"

    async def main() -> Any:
        client = library("tornado.httpclient").AsyncHTTPClient()
        options: dict[str, Any] = {"ssl_options": where.client, "request_timeout": 30.0}
        page = await client.fetch(url, **options)
        told = await client.fetch(url, method="PUT", body=BLOB[::-1], **options)
        many = await asyncio.gather(*[client.fetch(url, **options) for _ in range(5)])
        return [digest(page.body), told.body.decode(), [digest(one.body) for one in many]]

    return asyncio.run(main())


def websocket(where: Where) -> Any:
    """websocket-client, of Tornado's server"""
    port = _tornado(where)
    ws = library("websocket").create_connection(
        f"wss://{where.host}:{port}/ws", sslopt={"context": where.client}, timeout=20.0
    )
    told = []
    for size in (1, 125, 126, 65536, 1 << 20):
        ws.send_binary(BLOB[:size])
        told.append(digest(ws.recv()))
    for n in range(50):
        ws.send(f"message {n}")
    told.append(digest("".join(ws.recv() for _ in range(50)).encode()))
    ws.close()
    return told


# ---- urllib3, requests, http.client, httpx, of http.server ------------------------------------


def _web(where: Where) -> str:
    """http.server with TLS, in threads: its URL."""
    import http.server

    class Web(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(BLOB if self.path == "/blob" else self.path.encode())

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"]))[::-1])

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer((where.host, 0), Web)
    server.socket = where.server.wrap_socket(server.socket, server_side=True)
    in_thread(server.serve_forever)
    return f"https://{where.host}:{server.server_port}"


def urllib3(where: Where) -> Any:
    """urllib3: its pool asks by select whether a connection is still good"""
    url = _web(where)
    with library("urllib3").PoolManager(ssl_context=where.client, retries=False) as pool:
        told = [digest(pool.request("GET", url + path).data) for path in ("/a", "/blob", "/b")]
        told.append(digest(pool.request("POST", url, body=BLOB).data))
        part = pool.request("GET", url + "/blob", preload_content=False)
        told.append(digest(b"".join(part.stream(10000))))
        told.append(pool.connection_from_url(url).num_connections)
    return told


def requests(where: Where) -> Any:
    """requests"""
    url = _web(where)
    with library("requests").Session() as session:
        session.trust_env = False  # no bundle of certificates but this one
        session.verify = where.cert
        answers = [session.get(url + "/a"), session.get(url + "/blob"), session.post(url, BLOB)]
        return [digest(one.content) for one in answers]


def httpx(where: Where) -> Any:
    """httpx, its blocking client"""
    url = _web(where)
    with library("httpx").Client(verify=where.client) as client:
        answers = [
            client.get(url + "/a"),
            client.get(url + "/blob"),
            client.post(url, content=BLOB),
        ]
        return [digest(one.content) for one in answers]


# ---- asyncio's -----------------------------------------------------------------------------------


def aiohttp(where: Where) -> Any:
    """aiohttp's server and client: with TLS; and a static file without, which asyncio's sendfile
    carries"""
    web = library("aiohttp.web")

    async def post(request: Any) -> Any:
        return web.Response(body=(await request.read())[::-1])

    async def main(folder: str) -> Any:
        Path(folder, "blob").write_bytes(BLOB)
        app = web.Application(client_max_size=1 << 22)
        app.router.add_static("/files", folder)
        app.router.add_post("/", post)
        runner = web.AppRunner(app)
        await runner.setup()
        told = []
        for context in (where.server, None):
            site = web.TCPSite(runner, where.host, 0, ssl_context=context)
            await site.start()
        async with library("aiohttp").ClientSession() as session:
            for address, scheme in zip(runner.addresses, ("https", "http"), strict=True):
                url = f"{scheme}://{where.host}:{address[1]}"
                options: Any = {"ssl": where.client} if scheme == "https" else {}
                async with session.get(url + "/files/blob", **options) as answer:
                    told.append(digest(await answer.read()))
                headers = {"Range": "bytes=1000-99999"}
                async with session.get(url + "/files/blob", headers=headers, **options) as answer:
                    told.append(digest(await answer.read()))
                async with session.post(url, data=BLOB, **options) as answer:
                    told.append(digest(await answer.read()))
        await runner.cleanup()
        return told

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(main(folder))


def sendfile(where: Where) -> Any:
    """asyncio's loop.sendfile and loop.sock_sendfile, with fallback and without"""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        told: list[Any] = []
        with tempfile.TemporaryFile() as file:
            file.write(BLOB)
            file.flush()

            async def handle(_: Any, writer: asyncio.StreamWriter) -> None:
                await loop.sendfile(writer.transport, file, 1000, 500_000)
                writer.close()

            server = await asyncio.start_server(handle, where.host, 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            told.append(digest(await reader.read(-1)))
            writer.close()
            server.close()
            with socket.create_server((where.host, 0)) as listener:
                one = socket.create_connection(listener.getsockname())
                two, _ = listener.accept()
            with one, two:
                one.setblocking(False)
                two.setblocking(False)
                sent, data = await asyncio.gather(
                    loop.sock_sendfile(one, file, 7, 300_000), _all_of(loop, two, 300_000)
                )
                told += [sent, digest(data), file.tell()]
        return told

    return asyncio.run(main())


async def _all_of(loop: asyncio.AbstractEventLoop, sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await loop.sock_recv(sock, 65536)
    return data


# ---- mail, and SSH -----------------------------------------------------------------------------


def smtp(where: Where) -> Any:
    """smtplib with STARTTLS, of aiosmtpd"""
    import smtplib

    mails: list[bytes] = []

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            mails.append(envelope.content)
            return f"250 with {session.ssl is not None}"

    with socket.create_server((where.host, 0)) as probe:
        port = probe.getsockname()[1]
    controller = library("aiosmtpd.controller").Controller(
        Handler(), where.host, port, tls_context=where.server, require_starttls=True
    )
    controller.start()
    with smtplib.SMTP(where.host, port) as client:
        client.starttls(context=where.client)
        client.ehlo()
        client.sendmail(
            "a@example.org", ["b@example.org"], b"Subject: x\r\n\r\n" + b"line\r\n" * 50_000
        )
        answer = client.noop()[0]
    controller.stop()
    return [answer, [digest(mail) for mail in mails]]


def paramiko(where: Where) -> Any:
    """paramiko, client and server: threads that send and receive at the same time"""
    paramiko = library("paramiko")

    class Server(library("paramiko").ServerInterface):  # type: ignore[misc]
        def check_auth_password(self, username: str, password: str) -> Any:
            return paramiko.common.AUTH_SUCCESSFUL

        def check_channel_request(self, kind: str, chanid: int) -> Any:
            return paramiko.common.OPEN_SUCCEEDED

        def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
            in_thread(echo, channel)
            return True

    def echo(channel: Any) -> None:
        while data := channel.recv(65536):
            channel.sendall(data)
        channel.send_exit_status(7)
        channel.close()

    def serve() -> None:
        sock, _ = listener.accept()
        transport = paramiko.Transport(sock)
        transport.add_server_key(paramiko.ECDSAKey.generate())
        transport.start_server(server=Server())
        kept.append((transport, transport.accept(20.0)))

    kept: list[Any] = []
    listener = socket.create_server((where.host, 0))
    in_thread(serve)
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            where.host, listener.getsockname()[1], "user", "password",
            look_for_keys=False, allow_agent=False, timeout=20.0,
        )  # fmt: skip
        transport = client.get_transport()
        assert transport is not None
        channel = transport.open_session()
        channel.exec_command("echo")
        got = bytearray()

        def read() -> None:
            while len(got) < len(BLOB):
                got.extend(channel.recv(65536))

        reader = threading.Thread(target=read)
        reader.start()
        channel.sendall(BLOB)
        channel.shutdown_write()
        reader.join(60.0)
        return [digest(bytes(got)), channel.recv_exit_status()]


# ---- the descriptor itself --------------------------------------------------------------------


def connection(where: Where) -> Any:
    """multiprocessing.connection, which reads and writes descriptors"""
    from multiprocessing.connection import Client, Listener, wait

    with Listener((where.host, 0), authkey=b"secret") as listener:

        def serve() -> None:
            with listener.accept() as peer:
                while (item := peer.recv()) is not None:
                    peer.send(item[::-1])

        in_thread(serve)
        with Client(listener.address, authkey=b"secret") as client:
            told = []
            items: tuple[Any, ...] = ("text", BLOB, b"")
            for item in items:
                client.send(item)
                assert wait([client], 20.0) == [client]
                told.append(digest(repr(client.recv()).encode()))
            client.send(None)
            return told


def descriptor(where: Where) -> Any:
    """os.read, os.write, os.sendfile and their like, of what fileno() and detach() give"""
    with socket.create_server((where.host, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, _ = listener.accept()
    told: list[Any] = []
    fd = one.detach()
    told.append(os.write(fd, b"by a descriptor"))
    told.append(os.read(two.fileno(), 100).decode())
    told.append(os.writev(fd, [b"several ", b"buffers"]))
    into = [bytearray(3), bytearray(100)]
    told.append(os.readv(two.fileno(), into))
    told.append((into[0] + into[1]).rstrip(b"\0").decode())
    with tempfile.TemporaryFile() as file:
        file.write(BLOB)
        file.flush()
        told.append(os.sendfile(fd, file.fileno(), 100, 2000))
        told.append(digest(two.recv(2000, socket.MSG_WAITALL)))
        file.seek(5)
        told.append(os.sendfile(fd, file.fileno(), None, 10))
        told.append(digest(two.recv(10, socket.MSG_WAITALL)))
        told.append(file.tell())
    other = os.dup(fd)
    os.close(fd)
    told.append(os.write(other, b"still"))
    told.append(two.recv(10).decode())
    os.set_blocking(other, False)
    try:
        os.read(other, 10)
    except BlockingIOError as e:
        told.append(type(e).__name__)
    os.close(other)
    told.append(os.read(two.fileno(), 10).decode())
    two.close()
    return told


def fork(where: Where) -> Any:
    """socketserver's threads; a child process of subprocess"""

    class Lines(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    with socketserver.ThreadingTCPServer((where.host, 0), Lines) as server:
        in_thread(server.serve_forever)
        with socket.create_connection((where.host, server.server_address[1])) as sock:
            sock.sendall(b"one\ntwo\n")
            text = sock.recv(8, socket.MSG_WAITALL)
            done = subprocess.run(
                [sys.executable, "-c", "print(5)"], capture_output=True, check=True
            )
        server.shutdown()
    return [text.decode(), done.stdout.decode(), struct.calcsize("i")]


def processes(where: Where) -> Any:
    """Children of fork that listen at one port, each for itself"""
    with socket.create_server((where.host, 0), reuse_port=True) as probe:
        port = probe.getsockname()[1]
    children = []
    for _ in range(2):
        up, is_up = os.pipe()
        child = os.fork()
        if not child:
            listener = socket.create_server((where.host, port), reuse_port=True)
            os.write(is_up, b"x")
            while True:
                sock, _ = listener.accept()
                with sock:
                    while data := sock.recv(100):
                        sock.sendall(data.upper())
        os.read(up, 1)
        children.append(child)
    told = []
    for n in range(10):
        with socket.create_connection((where.host, port)) as sock:
            sock.sendall(b"ask %d" % n)
            told.append(sock.recv(5, socket.MSG_WAITALL).decode())
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return told


# ---- what has sockets of its own -------------------------------------------------------------


def gevent(where: Where) -> Any:
    """gevent: its own sockets, which do not come from us; ours beside them work, and block"""
    library("gevent.monkey").patch_all()
    ours = library("skbus.socket") if "skbus.socket" in sys.modules else socket
    pool = library("gevent")
    server = library("gevent.server").StreamServer(
        (where.host, 0), lambda sock, _: sock.sendall(b"hi")
    )
    server.start()
    sock = library("socket").create_connection((where.host, server.server_port))
    text = sock.recv(2)
    sock.close()
    server.stop()
    with ours.create_server((where.host, 0)) as listener:
        one = ours.create_connection(listener.getsockname())
        two, _ = listener.accept()
    with one, two:
        one.sendall(b"ours")
        spawned = pool.spawn(two.recv, 10)
        spawned.join()
        return [text.decode(), spawned.value.decode()]


PROGRAMS = {
    function.__name__: function
    for function in (
        paho, tornado, websocket, urllib3, requests, httpx, aiohttp, sendfile, smtp, paramiko,
        connection, descriptor, fork, processes, gevent,
    )
}  # fmt: skip


def main() -> None:
    name, *where = sys.argv[1:]
    told = PROGRAMS[name](Where(*where))
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    os._exit(0)  # servers' threads are daemons


if __name__ == "__main__":
    main()
