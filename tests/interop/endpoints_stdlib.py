# SPDX-License-Identifier: MIT
"""The standard library's servers and clients, aiosmtpd, pyftpdlib and trio, unmodified, on the
kernel's sockets or on ours: `--socket skbus.socket` installs ours in the place of `socket`.

`serve` starts all servers, each on a port of its own; `ask` uses all of them, and returns what
each client found. See `end.py`.
"""

import asyncio
import ftplib
import hashlib
import http.client
import http.server
import importlib
import io
import selectors
import smtplib
import socket
import socketserver
import tempfile
import threading
import xmlrpc.client
import xmlrpc.server
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from tests.interop.end import Module, installed_end, tell, wait

Ours = Any
"""`skbus.socket`, or None: then it is the kernel's"""

BLOB = bytes(range(256)) * 800
"""204,800 bytes"""


def digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


# ---- servers: each takes a port, and returns when it listens ---------------------------------


def _thread(function: Callable[[], object]) -> None:
    threading.Thread(target=function, daemon=True).start()


class _Web(http.server.BaseHTTPRequestHandler):
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


def serve_http(port: int, ours: Ours) -> None:
    _thread(http.server.ThreadingHTTPServer(("0.0.0.0", port), _Web).serve_forever)


class _Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class _Datagrams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data[::-1], self.client_address)


def serve_tcp(port: int, ours: Ours) -> None:
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    _thread(socketserver.ThreadingTCPServer(("0.0.0.0", port), _Lines).serve_forever)


def serve_udp(port: int, ours: Ours) -> None:
    _thread(socketserver.ThreadingUDPServer(("0.0.0.0", port), _Datagrams).serve_forever)


def serve_xmlrpc(port: int, ours: Ours) -> None:
    server = xmlrpc.server.SimpleXMLRPCServer(("0.0.0.0", port), logRequests=False)
    server.register_function(lambda base, exp: base**exp, "pow")
    server.register_function(lambda blob: xmlrpc.client.Binary(blob.data[::-1]), "reverse")
    _thread(server.serve_forever)


def serve_asyncio(port: int, ours: Ours) -> None:
    up = threading.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(echo, "0.0.0.0", port)
        up.set()
        await server.serve_forever()

    _thread(lambda: asyncio.run(main()))
    up.wait(60)


def serve_trio(port: int, ours: Ours) -> None:
    up = threading.Event()

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def main() -> None:
        _trio_sockets(ours)
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_tcp, echo, port)
            up.set()

    _thread(lambda: trio.run(main))
    up.wait(60)


def _trio_sockets(ours: Ours) -> None:
    if ours is not None:
        trio.socket.set_custom_socket_factory(importlib.import_module("skbus.trio").SocketFactory())


def _selecting(kind: type[selectors.BaseSelector]) -> Callable[[int, Ours], None]:
    """An echo server with one thread and one selector, which writes only when it may."""

    def serve(port: int, ours: Ours) -> None:
        listener = socket.create_server(("0.0.0.0", port))
        listener.setblocking(False)
        selector = kind()
        selector.register(listener, selectors.EVENT_READ)

        def loop() -> None:
            while True:
                for key, events in selector.select():
                    if key.fileobj is listener:
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        selector.register(sock, selectors.EVENT_READ, bytearray())
                    else:
                        _echo(selector, key, events)

        _thread(loop)

    return serve


def _echo(selector: selectors.BaseSelector, key: selectors.SelectorKey, events: int) -> None:
    sock: Any = key.fileobj
    pending = key.data
    if events & selectors.EVENT_READ:
        data = sock.recv(16384)
        if not data:
            selector.unregister(sock)
            sock.close()
            return
        pending += data
    if events & selectors.EVENT_WRITE:
        del pending[: sock.send(pending)]
    wanted = selectors.EVENT_READ if len(pending) < 65536 else 0
    wanted |= selectors.EVENT_WRITE if pending else 0
    selector.modify(sock, wanted, pending)


class _Mailbox:
    """aiosmtpd's handler: what came is told to who asks."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        text = digest(envelope.content.replace(b"\r\n", b"\n"))
        return f"250 {envelope.mail_from} {','.join(envelope.rcpt_tos)} {text}"


def serve_smtp(port: int, ours: Ours) -> None:
    from aiosmtpd.smtp import SMTP

    up = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(_Mailbox(), hostname="mail.test", data_size_limit=1 << 24), "0.0.0.0", port
        )
        up.set()
        await server.serve_forever()

    _thread(lambda: asyncio.run(main()))
    up.wait(60)


def serve_ftp(port: int, ours: Ours) -> None:
    import logging

    # by name, as it has no types
    authorizers: Any = importlib.import_module("pyftpdlib.authorizers")
    handlers: Any = importlib.import_module("pyftpdlib.handlers")
    servers: Any = importlib.import_module("pyftpdlib.servers")
    logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
    root = tempfile.mkdtemp(prefix="ftp")
    (Path(root) / "blob").write_bytes(BLOB)

    handlers.FTPHandler.use_sendfile = ours is None
    handlers.FTPHandler.authorizer = authorizers.DummyAuthorizer()
    handlers.FTPHandler.authorizer.add_user("user", "secret", root, perm="elradfmw")
    server = servers.FTPServer(("0.0.0.0", port), handlers.FTPHandler)
    _thread(server.serve_forever)


# ---- clients: each takes an address, and returns what it found -------------------------------


def ask_http(host: str, port: int, ours: Ours) -> Any:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    found = []
    for method, path, body in (("GET", "/a", None), ("GET", "/blob", None), ("POST", "/", BLOB)):
        connection.request(method, path, body)
        found.append(digest(connection.getresponse().read()))
    connection.close()
    return found


def ask_tcp(host: str, port: int, ours: Ours) -> Any:
    with socket.create_connection((host, port), timeout=60) as sock, sock.makefile("rwb") as file:
        found = []
        for line in (b"one\n", b"two\n", b"x" * 50_000 + b"\n"):
            file.write(line)
            file.flush()
            found.append(digest(file.readline()))
    return found


def ask_udp(host: str, port: int, ours: Ours) -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        found = []
        for data in (b"abc", b"", bytes(range(256)) * 20):
            sock.sendto(data, (host, port))
            found.append(digest(sock.recvfrom(65536)[0]))
    return found


def ask_xmlrpc(host: str, port: int, ours: Ours) -> Any:
    with xmlrpc.client.ServerProxy(f"http://{host}:{port}/") as proxy:
        blob: Any = proxy.reverse(xmlrpc.client.Binary(BLOB))
        try:
            proxy.nothing()
        except xmlrpc.client.Fault as e:
            fault = "not supported" in e.faultString
        return [proxy.pow(2, 10), digest(blob.data), fault]


def ask_asyncio(host: str, port: int, ours: Ours) -> Any:
    async def main() -> Any:
        reader, writer = await asyncio.open_connection(host, port)

        async def write() -> None:
            writer.write(BLOB)
            await writer.drain()
            writer.write_eof()

        data, _ = await asyncio.gather(reader.read(-1), write())
        writer.close()
        await writer.wait_closed()
        return digest(data)

    return asyncio.run(asyncio.wait_for(main(), 60))


def ask_trio(host: str, port: int, ours: Ours) -> Any:
    received = bytearray()

    async def main() -> None:
        _trio_sockets(ours)
        with trio.fail_after(60):
            stream = await trio.open_tcp_stream(host, port)
            async with stream, trio.open_nursery() as nursery:

                async def write() -> None:
                    await stream.send_all(BLOB)
                    await stream.send_eof()

                nursery.start_soon(write)
                async for data in stream:
                    received.extend(data)

    trio.run(main)
    return digest(bytes(received))


def _ask_echo(host: str, port: int, ours: Ours) -> Any:
    with socket.create_connection((host, port), timeout=60) as sock:
        _thread(lambda: sock.sendall(BLOB))
        data = b""
        while len(data) < len(BLOB) and (more := sock.recv(65536)):
            data += more
        return digest(data)


def ask_smtp(host: str, port: int, ours: Ours) -> Any:
    text = "Subject: test\n\n" + "0123456789" * 6 + "\n.\n..dots\n" + "line\n" * 20_000
    with smtplib.SMTP(host, port, local_hostname="client.test", timeout=60) as smtp:
        smtp.ehlo()
        smtp.mail("a@example.org")
        smtp.rcpt("b@example.org")
        smtp.rcpt("c@example.org")
        code, answer = smtp.data(text)
        return [code, answer.decode(), sorted(smtp.esmtp_features)]


def ask_ftp(host: str, port: int, ours: Ours) -> Any:
    found: list[Any] = []
    with ftplib.FTP(timeout=60) as ftp:
        ftp.connect(host, port)
        ftp.login("user", "secret")
        for passive in (True, False):
            ftp.set_pasv(passive)
            got = bytearray()
            ftp.retrbinary("RETR blob", got.extend)
            ftp.storbinary("STOR up", io.BytesIO(BLOB[::-1]))
            back = bytearray()
            ftp.retrbinary("RETR up", back.extend)
            found += [digest(bytes(got)), bytes(back) == BLOB[::-1], sorted(ftp.nlst())]
            ftp.delete("up")
    return found


SERVERS: dict[str, Callable[[int, Ours], None]] = {
    "http": serve_http,
    "socketserver tcp": serve_tcp,
    "socketserver udp": serve_udp,
    "xmlrpc": serve_xmlrpc,
    "asyncio": serve_asyncio,
    "trio": serve_trio,
    "select": _selecting(selectors.SelectSelector),
    "poll": _selecting(selectors.PollSelector),
    "epoll": _selecting(selectors.EpollSelector),
    "smtp": serve_smtp,
    "ftp": serve_ftp,
}
CLIENTS: dict[str, Callable[[str, int, Ours], Any]] = {
    "http": ask_http,
    "socketserver tcp": ask_tcp,
    "socketserver udp": ask_udp,
    "xmlrpc": ask_xmlrpc,
    "asyncio": ask_asyncio,
    "trio": ask_trio,
    "select": _ask_echo,
    "poll": _ask_echo,
    "epoll": _ask_echo,
    "smtp": ask_smtp,
    "ftp": ask_ftp,
}


def _ours(net: Module) -> Ours:
    return None if net is socket else net


@installed_end
def serve(net: Module, ports: dict[str, int]) -> Any:
    """All servers, until the test has heard enough."""
    ours = _ours(net)
    for name, port in ports.items():
        SERVERS[name](port, ours)
    tell(ready=True)
    wait()
    return True


@installed_end
def ask(net: Module, host: str, ports: dict[str, int]) -> Any:
    """What each client found; or the exception that it ended with."""
    ours = _ours(net)
    found = {}
    for name, port in ports.items():
        try:
            found[name] = CLIENTS[name](host, port, ours)
        except Exception as e:  # noqa: BLE001 - the test shows it
            found[name] = repr(e)
    return found
