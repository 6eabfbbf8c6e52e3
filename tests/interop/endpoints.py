# SPDX-License-Identifier: MIT
"""The ends of most interoperability tests: streams, closes, datagrams, odd segments, HTTP."""

import hashlib
import importlib
import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.interop.end import Module, end, error_name, listening, tell, wait

from skbus.core.uapi import IP_MTU, IP_MTU_DISCOVER

# linux/in.h; the socket module of Python 3.11 does not have them

BURST = 20
"""datagrams that are sent before they are answered"""


def content(size: int, seed: int) -> bytes:
    """The same bytes at both ends, and no two places alike."""
    return random.Random(seed).randbytes(size)


def _receive_all(sock: Any) -> tuple[int, str]:
    digest = hashlib.sha256()
    room = memoryview(bytearray(1 << 18))
    size = 0
    while n := sock.recv_into(room):
        digest.update(room[:n])
        size += n
    return size, digest.hexdigest()


def _send_all(net: Module, sock: Any, size: int, seed: int) -> str:
    data = content(size, seed)
    sock.sendall(data)
    sock.shutdown(net.SHUT_WR)
    return hashlib.sha256(data).hexdigest()


# ---- bulk ------------------------------------------------------------------------------------


@end
def serve_receive(net: Module, port: int) -> Any:
    """Accept, receive until the peer has finished; how much, and its SHA-256."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        with sock:
            size, digest = _receive_all(sock)
    return {"size": size, "sha256": digest}


@end
def serve_send(net: Module, port: int, size: int, seed: int) -> Any:
    """Accept, send, wait for the peer's end."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        with sock:
            digest = _send_all(net, sock, size, seed)
            rest = sock.recv(1)
    return {"size": size, "sha256": digest, "rest": len(rest)}


@end
def send(net: Module, host: str, port: int, size: int, seed: int) -> Any:
    """Connect, send, wait for the peer's end."""
    with net.create_connection((host, port)) as sock:
        digest = _send_all(net, sock, size, seed)
        rest = sock.recv(1)
    return {"size": size, "sha256": digest, "rest": len(rest)}


@end
def receive(net: Module, host: str, port: int) -> Any:
    """Connect, receive until the peer has finished."""
    with net.create_connection((host, port)) as sock:
        size, digest = _receive_all(sock)
    return {"size": size, "sha256": digest}


def both_ways(net: Module, sock: Any, size: int, seed: int) -> Any:
    """Send and receive at the same time."""
    sent: list[str] = []
    sender = threading.Thread(target=lambda: sent.append(_send_all(net, sock, size, seed)))
    sender.start()
    received, digest = _receive_all(sock)
    sender.join()
    return {"sent": sent[0], "size": received, "received": digest}


@end
def serve_both_ways(net: Module, port: int, size: int, seed: int) -> Any:
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        with sock:
            return both_ways(net, sock, size, seed)


@end
def connect_both_ways(net: Module, host: str, port: int, size: int, seed: int) -> Any:
    with net.create_connection((host, port)) as sock:
        return both_ways(net, sock, size, seed)


# ---- many connections ------------------------------------------------------------------------


@end
def serve_many(net: Module, port: int, count: int) -> Any:
    """Hold `count` connections open at once; then echo 4 KiB on each; then wait for the ends."""
    socks = []
    with listening(net, port) as listener:
        for _ in range(count):
            sock, _ = listener.accept()
            socks.append(sock)
    tell(accepted=len(socks))
    for sock in socks:
        data = b""
        while len(data) < 4096 and (more := sock.recv(4096 - len(data))):
            data += more
        sock.sendall(data)
    ends = 0
    for sock in socks:
        ends += sock.recv(1) == b""
        sock.close()
    return {"ends": ends}


@end
def connect_many(net: Module, host: str, port: int, count: int) -> Any:
    """Open `count` connections, keep them all; exchange 4 KiB on each; close."""
    socks = [net.create_connection((host, port)) for _ in range(count)]
    for n, sock in enumerate(socks):
        sock.sendall(content(4096, n))
    right = 0
    for n, sock in enumerate(socks):
        data = b""
        while len(data) < 4096 and (more := sock.recv(4096 - len(data))):
            data += more
        right += data == content(4096, n)
    for sock in socks:
        sock.close()
    return {"right": right}


@end
def short_connections(net: Module, host: str, port: int, count: int) -> Any:
    """Connect, ask the echo server, close; `count` times, eight at a time."""

    def one(n: int) -> bool:
        with net.create_connection((host, port)) as sock:
            ask = n.to_bytes(4, "big") * 4
            sock.sendall(ask)
            answer = b""
            while len(answer) < len(ask) and (more := sock.recv(64)):
                answer += more
        return answer == ask

    with ThreadPoolExecutor(8) as pool:
        return {"right": sum(pool.map(one, range(count)))}


@end
def serve_short_connections(net: Module, port: int, count: int) -> Any:
    """The echo server to that: waits for each client's end before it closes."""

    def one(sock: Any) -> bool:
        with sock:
            while data := sock.recv(64):
                sock.sendall(data)
        return True

    with listening(net, port) as listener, ThreadPoolExecutor(8) as pool:
        done = [pool.submit(one, listener.accept()[0]) for _ in range(count)]
        return {"right": sum(f.result() for f in done)}


# ---- closes, resets, refusals ------------------------------------------------------------------


@end
def serve_half_close(net: Module, port: int) -> Any:
    """Read to the end of the request; only then answer, on the half that is still open."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        with sock:
            size, digest = _receive_all(sock)
            answer = content(200_000, 5)
            sock.sendall(answer)
    return {"size": size, "sha256": digest, "sent": hashlib.sha256(answer).hexdigest()}


@end
def half_close(net: Module, host: str, port: int) -> Any:
    """Ask, close our half, read the answer."""
    with net.create_connection((host, port)) as sock:
        sent = _send_all(net, sock, 100_000, 6)
        size, digest = _receive_all(sock)
        try:
            sock.send(b"x")
            after = "sent"
        except OSError as e:
            after = error_name(e)
    return {"sent": sent, "size": size, "sha256": digest, "send_after_shutdown": after}


def _abort(net: Module, sock: Any) -> None:
    """Close with a RST: linger on, for no time."""
    sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
    sock.close()


@end
def serve_reset(net: Module, port: int) -> Any:
    """Accept, read the first bytes, reset."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        got = sock.recv(100)
        _abort(net, sock)
    return {"got": got.decode()}


@end
def be_reset(net: Module, host: str, port: int) -> Any:
    """Connect, say something, and report how reading and then writing ends."""
    with net.create_connection((host, port)) as sock:
        sock.sendall(b"hello")
        try:
            read = sock.recv(100).decode()
        except OSError as e:
            read = type(e).__name__
        try:
            sock.send(b"more")
            write = "sent"
        except OSError as e:
            write = type(e).__name__
    return {"read": read, "write": write}


@end
def reset(net: Module, host: str, port: int) -> Any:
    """Connect, say something, reset."""
    sock = net.create_connection((host, port))
    sock.sendall(b"hello")
    tell(sent=True)
    wait()
    _abort(net, sock)
    return {}


@end
def serve_be_reset(net: Module, port: int) -> Any:
    """Accept, read, and report how the next read ends."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        with sock:
            got = sock.recv(100).decode()
            tell(got=got)
            try:
                read = sock.recv(100).decode()
            except OSError as e:
                read = type(e).__name__
    return {"got": got, "read": read}


@end
def close_unread(net: Module, host: str, port: int) -> Any:
    """Close with data unread, which RFC 2525 2.17 answers with RST: the peer must see that."""
    sock = net.create_connection((host, port))
    sock.sendall(b"hello")
    peeked = sock.recv(1, net.MSG_PEEK)
    sock.close()
    return {"peeked": len(peeked)}


@end
def serve_answer_then_read(net: Module, port: int) -> Any:
    """Accept, read, answer at length, and report how reading on ends."""
    with listening(net, port) as listener:
        sock, _ = listener.accept()
        with sock:
            sock.recv(100)
            sock.sendall(bytes(5000))
            try:
                read = sock.recv(100).decode()
            except OSError as e:
                read = type(e).__name__
    return {"read": read}


@end
def connect_outcome(net: Module, host: str, port: int, timeout: float | None) -> Any:
    """How a connect ends: its error's class and name."""
    sock = net.socket(net.AF_INET, net.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect((host, port))
        outcome = "connected"
    except TimeoutError:
        outcome = "TimeoutError"
    except OSError as e:
        outcome = error_name(e)
    finally:
        sock.close()
    return {"outcome": outcome}


@end
def wait_listening(net: Module, host: str, port: int, seconds: float) -> Any:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            net.create_connection((host, port), timeout=2).close()
        except (ConnectionRefusedError, TimeoutError):
            if time.monotonic() > deadline:
                return {"listening": False}
            time.sleep(0.02)
        else:
            return {"listening": True}


# ---- datagrams ---------------------------------------------------------------------------------


@end
def serve_datagrams(net: Module, port: int, count: int, own: str = "0.0.0.0") -> Any:
    """Send each datagram back to where it came from."""
    sizes = []
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.bind((own, port))
        tell(ready=True)
        for _ in range(count):
            data, address = sock.recvfrom(65535)
            sizes.append(len(data))
            sock.sendto(data, address)
    return {"sizes": sizes}


@end
def datagrams(
    net: Module, host: str, port: int, sizes: list[int], pmtudisc: int | None = None
) -> Any:
    """Send datagrams of these sizes, one at a time; which of them come back as they were."""
    right = []
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.settimeout(45)
        if pmtudisc is not None:
            sock.setsockopt(net.IPPROTO_IP, IP_MTU_DISCOVER, pmtudisc)
        sock.connect((host, port))
        for size in sizes:
            data = content(size, size)
            sock.send(data)
            try:
                if sock.recv(65535) == data:
                    right.append(size)
            except TimeoutError:
                break
    return {"right": right}


def burst_sizes(seed: int, count: int) -> list[int]:
    """Runs of equal sizes, and others; some are fragmented."""
    rand = random.Random(seed)
    sizes: list[int] = []
    while len(sizes) < count:
        size = rand.choice((4, 64, 64, 200, 257, 1000, 1472, 1473, 4000))
        sizes += [size] * rand.choice((1, 2, 7, 30)) + [rand.randrange(4, size + 1)]
    return sizes[:count]


@end
def send_bursts(
    net: Module, host: str, port: int, seed: int, count: int, connected: bool = True
) -> Any:
    """Send `count` numbered datagrams, in bursts that the receiver answers, so that none is lost
    for want of room."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        if connected:
            sock.connect((host, port))
        for i, size in enumerate(burst_sizes(seed, count)):
            data = i.to_bytes(4, "big") + content(size - 4, i)
            sent = sock.send(data) if connected else sock.sendto(data, (host, port))
            if sent != size:
                return {"short": i}
            if i % BURST == BURST - 1 or i == count - 1:
                sock.settimeout(60)
                if int.from_bytes(sock.recv(100), "big") != i:
                    return {"answer": i}
                sock.settimeout(None)
    return {"sent": count}


@end
def receive_bursts(net: Module, port: int, seed: int, count: int) -> Any:
    """The other end of it: how many came in order and whole, and the first that did not."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        tell(ready=True)
        sock.settimeout(60)
        sizes = burst_sizes(seed, count)
        for i, size in enumerate(sizes):
            data, who = sock.recvfrom(65535)
            if data != i.to_bytes(4, "big") + content(size - 4, i):
                return {"right": i, "got": (len(data), int.from_bytes(data[:4], "big"), size)}
            if i % BURST == BURST - 1 or i == count - 1:
                sock.sendto(i.to_bytes(4, "big"), who)
    return {"right": count}


@end
def path_mtu(net: Module, host: str, port: int, size: int, pmtudisc: int) -> Any:
    """Send datagrams that may not be fragmented until one is refused here for its size; how it
    was refused, and the path's MTU before and after."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.setsockopt(net.IPPROTO_IP, IP_MTU_DISCOVER, pmtudisc)
        sock.connect((host, port))
        before = sock.getsockopt(net.IPPROTO_IP, IP_MTU)
        outcome = "sent"
        deadline = time.monotonic() + 45
        while outcome == "sent" and time.monotonic() < deadline:
            try:
                sock.send(bytes(size))
                time.sleep(0.02)
            except OSError as e:
                outcome = error_name(e)
        after = sock.getsockopt(net.IPPROTO_IP, IP_MTU)
    return {"outcome": outcome, "before": before, "after": after}


@end
def datagram_refused(net: Module, host: str, port: int) -> Any:
    """What a connected datagram socket hears from a port where nobody listens."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((host, port))
        outcome = "TimeoutError"
        deadline = time.monotonic() + 45
        while outcome == "TimeoutError" and time.monotonic() < deadline:
            # Again, as hosts tell one peer of so many errors in a second and no more.
            try:
                sock.send(b"anybody?")
                sock.recv(100)
                outcome = "data"
            except OSError as e:
                outcome = type(e).__name__
    return {"outcome": outcome}


# ---- odd segments ------------------------------------------------------------------------------


def _segment(source: str, host: str, sport: int, dport: int, flags: int) -> bytes:
    """A bare TCP header with these flags, its checksum right."""
    head = struct.pack("!HHIIBBHHH", sport, dport, 1000, 2000, 5 << 4, flags, 1024, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(host) + struct.pack("!HH", 6, len(head))
    total = sum(struct.unpack("!16H", pseudo + head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return head[:16] + struct.pack("!H", ~total & 0xFFFF) + head[18:]


@end
def odd_segments(net: Module, source: str, host: str, ports: list[int]) -> Any:
    """Send each of the 64 combinations of flags to each port; what comes back, as flags and
    window. Linux only: a raw socket, whose kernel also answers what it did not ask for."""
    sock = net.socket(net.AF_INET, net.SOCK_RAW, net.IPPROTO_TCP)
    sock.bind((source, 0))
    asked = {}
    for at, port in enumerate(ports):
        for flags in range(64):
            sport = 1024 + 64 * at + flags
            asked[sport] = (port, flags)
            sock.sendto(_segment(source, host, sport, port, flags), (host, 0))
    replies: dict[str, list[str]] = {}
    sock.settimeout(20)
    deadline = time.monotonic() + 30
    seen = set()
    while time.monotonic() < deadline:
        try:
            packet, (sender, _) = sock.recvfrom(2048)
        except TimeoutError:
            break
        sock.settimeout(1)  # for the next one
        at = (packet[0] & 15) * 4
        dport, flags = struct.unpack_from("!H", packet, at + 2)[0], packet[at + 13]
        if sender != host or dport not in asked or (dport, flags) in seen:
            continue
        seen.add((dport, flags))
        port, sent = asked[dport]
        # A window other than 0 is the receiver's own affair; whether the numbers fit is not.
        seq, ack = struct.unpack_from("!II", packet, at + 4)
        shut = struct.unpack_from("!H", packet, at + 14)[0] == 0
        told = f"{flags:#04x} ack={ack} {'shut' if shut else 'open'}"
        if not flags & 2:
            told += f" seq={seq}"
        replies.setdefault(f"{port} {sent:#04x}", []).append(told)
    return {"replies": {k: sorted(v) for k, v in sorted(replies.items())}}


# ---- HTTP ------------------------------------------------------------------------------


@end
def serve_files(net: Module, port: int, directory: str) -> Any:
    """Serve a directory on the kernel's stack until the test says so."""
    import functools
    import http.server

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=directory)
    with http.server.ThreadingHTTPServer(("0.0.0.0", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        tell(ready=True)
        wait()
        server.shutdown()
        thread.join()
    return {}


@end
def http_get(net: Module, host: str, port: int, path: str, times: int) -> Any:
    """`http.client`, unmodified, over the socket module; keep-alive."""
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=50)
    connection._create_connection = net.create_connection  # type: ignore[attr-defined]
    digest = ""
    for _ in range(times):
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        digest = hashlib.sha256(body).hexdigest()
        if response.status != 200:
            return {"status": response.status}
    connection.close()
    return {"status": 200, "size": len(body), "sha256": digest}


@end
def httpx_get(net: Module, url: str, times: int) -> Any:
    """httpx under trio, its sockets ours by trio's own hook."""
    import httpx
    import trio

    async def fetch() -> Any:
        if net.__name__ != "socket":
            factory = importlib.import_module("skbus.trio").SocketFactory()
            trio.socket.set_custom_socket_factory(factory)
        async with httpx.AsyncClient(timeout=50) as client:
            for _ in range(times):
                response = await client.get(url)
        return {
            "status": response.status_code,
            "size": len(response.content),
            "sha256": hashlib.sha256(response.content).hexdigest(),
        }

    return trio.run(fetch)
