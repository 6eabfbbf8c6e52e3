# SPDX-License-Identifier: MIT
"""A server of iperf3's protocol, so that a stock `iperf3 -c` measures our stack.

It lies above the socket layer, as an application does: blocking sockets and one thread for each
data stream. `skbus serve iperf3` calls `serve` with `skbus.socket`; with the standard library's
`socket` the same code measures Linux.

    control connection                                      data streams (TCP or UDP, same port)
      client: cookie, 37 bytes
      server: PARAM_EXCHANGE      client: JSON
      server: CREATE_STREAMS                                client: connects, cookie on each
      server: TEST_START, TEST_RUNNING                      bytes; reverse (-R): from us
      client: TEST_END
      server: EXCHANGE_RESULTS    client: JSON   server: JSON
      server: DISPLAY_RESULTS     client: IPERF_DONE

A JSON text is preceded by its length in four bytes. There is no RFC; this follows what iperf 3.1
to 3.17 say on the wire. Spoken: TCP and UDP, -R, --bidir, -P, -t, -n, -k, -l, -O, -b, -C, -M, -N,
-w, -S, --get-server-output. Refused with iperf3's own error: --authentication, SCTP.
"""

import json
import signal
import socket as stdlib
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from skbus.serve.iperf3_stream import Direction, Stream, TcpStream, UdpPort, UdpStream

PORT: Final = 5201

COOKIE_SIZE: Final = 37
"""36 characters and a NUL."""
_MAX_PARAMS: Final = 8 * 1024
_MAX_RESULTS: Final = 4 << 20
_MAX_NAME: Final = 15
"""TCP_CA_NAME_MAX of Linux, without the NUL"""
_MAX_STREAMS: Final = 128
"""iperf3's own limit (MAX_STREAMS)."""

# Bytes of the control connection (iperf_api.h)
TEST_START: Final = 1
TEST_RUNNING: Final = 2
TEST_END: Final = 4
PARAM_EXCHANGE: Final = 9
CREATE_STREAMS: Final = 10
SERVER_TERMINATE: Final = 11
CLIENT_TERMINATE: Final = 12
EXCHANGE_RESULTS: Final = 13
DISPLAY_RESULTS: Final = 14
IPERF_DONE: Final = 16
ACCESS_DENIED: Final = 0xFF
SERVER_ERROR: Final = 0xFE

# Numbers of iperf3's errors that a client turns into sentences (iperf_error)
_IEUNIMP: Final = 13
_IESTREAMWRITE: Final = 205
_IERECVPARAMS: Final = 114
_IESETMSS: Final = 136
_IEAUTHTEST: Final = 142

_CONTROL_TIMEOUT: Final = 30.0
"""Seconds a client may be silent where it is its turn, outside of the test itself."""
_LOOK: Final = 0.25
"""Seconds after which the server looks whether a client that makes no stream is still there."""
_DRAIN: Final = 1.0
"""Seconds in which bytes still under way at the end of a test are read and thrown away."""


class ProtocolError(Exception):
    """The client said something that iperf3 does not say, or asks what we do not do."""

    def __init__(self, text: str, number: int = _IERECVPARAMS) -> None:
        super().__init__(text)
        self.number = number


@dataclass(slots=True)
class Params:
    """What a client asks for, from its JSON."""

    udp: bool = False
    reverse: bool = False
    bidirectional: bool = False
    parallel: int = 1
    time: float = 10.0
    omit: float = 0.0
    num: int = 0
    """bytes in all, 0 for no bound"""
    blockcount: int = 0
    length: int = 131072
    bandwidth: int = 0
    """bits per second for each stream, 0 for as fast as it goes"""
    nodelay: bool = False
    mss: int = 0
    window: int = 0
    tos: int = 0
    congestion: str = ""
    counters_64bit: bool = False
    server_output: bool = False

    @classmethod
    def parse(cls, given: dict[str, Any]) -> "Params":
        """Of the client's JSON. ProtocolError names what is wrong or not done here."""
        if given.get("authtoken"):
            raise ProtocolError("this server asks for no authentication", _IEAUTHTEST)
        if given.get("sctp"):
            raise ProtocolError("SCTP is not spoken here", _IEUNIMP)

        def number(key: str, default: float, low: float, high: float) -> float:
            value = given.get(key, default)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ProtocolError(f"{key} is no number")
            if not low <= value <= high:
                raise ProtocolError(f"{key} = {value} is not within {low:g} and {high:g}")
            return value

        udp = bool(given.get("udp"))
        return cls(
            udp=udp,
            reverse=bool(given.get("reverse")),
            bidirectional=bool(given.get("bidirectional")),
            parallel=int(number("parallel", 1, 1, _MAX_STREAMS)),
            time=number("time", 10, 0, 86400),
            omit=number("omit", 0, 0, 600),
            num=int(number("num", 0, 0, 2**63)),
            blockcount=int(number("blockcount", 0, 0, 2**63)),
            length=int(number("len", 131072, 16 if udp else 1, 65507 if udp else 1 << 20)),
            bandwidth=int(number("bandwidth", 0, 0, 2**63)),
            nodelay=bool(given.get("nodelay")),
            mss=int(number("MSS", 0, 0, 65535)),
            window=int(number("window", 0, 0, 2**31 - 1)),
            tos=int(number("TOS", 0, 0, 255)),
            congestion=_name(given.get("congestion", "")),
            counters_64bit=bool(given.get("udp_counters_64bit")),
            server_output=bool(given.get("get_server_output")),
        )

    def directions(self) -> list[Direction]:
        """Of our streams, in the order in which the client makes them."""
        ours: list[Direction] = ["send"] if self.reverse else ["receive"]
        if self.bidirectional:
            # The client makes its sending streams first.
            ours = ["receive", "send"]
        return [d for d in ours for _ in range(self.parallel)]


@dataclass
class Report:
    """What came of one test."""

    peer: str
    params: Params
    seconds: float
    streams: list[Stream] = field(default_factory=list)
    error: str = ""

    def bytes(self, direction: Direction) -> int:
        """All streams of one direction, without the omitted seconds."""
        return sum(s.counted for s in self.streams if s.direction == direction)

    def lines(self) -> list[str]:
        """For a person."""
        kind = "UDP" if self.params.udp else "TCP"
        out: list[str] = []
        directions: tuple[tuple[Direction, str], ...] = (("receive", "from"), ("send", "to"))
        for direction, word in directions:
            streams = [s for s in self.streams if s.direction == direction]
            if not streams:
                continue
            total = self.bytes(direction)
            rate = total * 8 / self.seconds / 1e6 if self.seconds > 0 else 0.0
            line = (
                f"{kind} {word} {self.peer}: {total / 1e6:.1f} MB in {self.seconds:.2f} s = "
                f"{rate:.1f} Mbit/s, {len(streams)} stream{'s' if len(streams) > 1 else ''}"
            )
            if retransmits := sum(max(0, s.retransmits) for s in streams):
                line += f", {retransmits} retransmissions"
            if self.params.udp and direction == "receive":
                packets = sum(s.packets for s in streams)
                lost = sum(s.lost for s in streams)
                jitter = max(s.jitter for s in streams) * 1e3
                line += f", {lost} of {packets} datagrams lost, jitter {jitter:.3f} ms"
            out.append(line)
        if self.error:
            out.append(f"{kind} {self.peer}: {self.error}")
        return out


class Control:
    """The control connection of one test."""

    def __init__(self, sock: stdlib.socket) -> None:
        self.sock = sock
        sock.settimeout(_CONTROL_TIMEOUT)
        with suppress(OSError):
            sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)

    def read(self, count: int) -> bytes:
        """Exactly so many bytes. ProtocolError where the client ends before."""
        got = bytearray()
        while len(got) < count:
            part = self.sock.recv(count - len(got))
            if not part:
                raise ProtocolError("the client has gone")
            got += part
        return bytes(got)

    def gone(self) -> bool:
        """Has the client ended the connection? What it says otherwise stays unread."""
        self.sock.settimeout(0.0)
        try:
            return not self.sock.recv(1, stdlib.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(_CONTROL_TIMEOUT)

    def read_json(self, limit: int) -> dict[str, Any]:
        """One JSON object, at most `limit` bytes."""
        (length,) = struct.unpack("!I", self.read(4))
        if length > limit:
            raise ProtocolError(f"a JSON of {length} bytes: {limit} are the limit")
        try:
            value = json.loads(self.read(length))
        except (ValueError, RecursionError) as e:  # the latter: ten thousand brackets
            raise ProtocolError(f"no JSON: {e}") from None
        if not isinstance(value, dict):
            raise ProtocolError("a JSON that is no object")
        return value

    def write_json(self, value: dict[str, Any]) -> None:
        text = json.dumps(value).encode()
        self.sock.sendall(struct.pack("!I", len(text)) + text)

    def state(self, state: int) -> None:
        self.sock.sendall(bytes([state]))

    def refuse(self, error: ProtocolError) -> None:
        """SERVER_ERROR with iperf3's error number and an errno of 0."""
        with suppress(OSError):
            self.sock.sendall(bytes([SERVER_ERROR]) + struct.pack("!ii", error.number, 0))


class Patience:
    """Waits for a client's streams, as long as the client itself is there."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._until = time.monotonic() + _CONTROL_TIMEOUT

    def check(self) -> None:
        """ProtocolError where the client has gone, TimeoutError where it takes too long."""
        if self._control.gone():
            raise ProtocolError("the client has gone")
        if time.monotonic() > self._until:
            raise TimeoutError("the client makes no stream")


class Server:
    """One listener; one test at a time, as in iperf3: whoever comes meanwhile is told "busy".

    api: the socket module, `skbus.socket` or the standard library's. say: receives the report
    of each test, a line at a time.
    """

    def __init__(
        self,
        address: str = "",
        port: int = PORT,
        *,
        api: Any = stdlib,  # a module: mypy cannot say "has the functions of socket"
        say: Callable[[str], None] = print,
    ) -> None:
        self.api = api
        self.say = say
        self.listener: stdlib.socket = api.socket(stdlib.AF_INET, stdlib.SOCK_STREAM)
        self.listener.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(_MAX_STREAMS)
        self.address = address
        self.port: int = self.listener.getsockname()[1]
        self.reports: list[Report] = []

    def close(self) -> None:
        """End listening."""
        self.listener.close()

    def serve_one(self) -> Report:
        """Wait for one client, and run its test."""
        self.listener.settimeout(None)
        while True:
            try:
                sock, peer = self.listener.accept()
            except ConnectionAbortedError:
                continue  # a connection that has ended before we had it
            with sock:
                control = Control(sock)
                report = Report(f"{peer[0]}:{peer[1]}", Params(), 0.0)
                try:
                    cookie = control.read(COOKIE_SIZE)
                except (ProtocolError, OSError):
                    continue  # a port scanner, or a health check
                try:
                    self._test(control, cookie, report)
                except ProtocolError as e:
                    report.error = str(e)
                    control.refuse(e)
                except OSError as e:
                    report.error = f"broken off: {e}"
                for line in report.lines():
                    self.say(line)
                return report

    def serve_forever(self) -> None:
        """One test after another, until an exception (Ctrl-C) ends it."""
        while True:
            self.serve_one()

    # ---- one test ------------------------------------------------------------------------

    def _test(self, control: Control, cookie: bytes, report: Report) -> None:
        control.state(PARAM_EXCHANGE)
        params = report.params = Params.parse(control.read_json(_MAX_PARAMS))
        with ExitStack() as stack:
            make = self._udp_streams if params.udp else self._tcp_streams
            streams = report.streams = make(control, cookie, params, stack)
            with self._busy_to_others():
                control.state(TEST_START)
                for stream in streams:
                    stream.start(params.omit)
                started = time.monotonic()
                cpu = time.process_time()
                control.state(TEST_RUNNING)
                self._run(control, params, streams)
                ended = time.monotonic()
                report.seconds = max(0.0, ended - started - params.omit)
                cpu = (time.process_time() - cpu) / max(1e-9, ended - started) * 100
            for stream in streams:
                stream.stop()
            self._results(control, report, cpu)
            for stream in streams:
                stream.join(_DRAIN)

    def _run(self, control: Control, params: Params, streams: list[Stream]) -> None:
        """Until the client says TEST_END. A client that goes away without a word is noticed."""
        control.sock.settimeout(params.omit + (params.time or 86400) + _CONTROL_TIMEOUT)
        try:
            state = control.read(1)[0]
        except (ProtocolError, OSError):
            for stream in streams:
                stream.stop()
            raise
        control.sock.settimeout(_CONTROL_TIMEOUT)
        if state != TEST_END:
            for stream in streams:
                stream.stop()
            what = "stopped by the client" if state == CLIENT_TERMINATE else f"state {state}"
            raise ProtocolError(what)
        for stream in streams:
            if stream.error:
                raise ProtocolError(stream.error, _IESTREAMWRITE)

    def _results(self, control: Control, report: Report, cpu: float) -> None:
        control.state(EXCHANGE_RESULTS)
        theirs = control.read_json(_MAX_RESULTS).get("streams")
        # The numbers of the streams are the client's affair: it makes them in the same order.
        streams = theirs if isinstance(theirs, list) else []
        ids = [s["id"] for s in streams if isinstance(s, dict) and isinstance(s.get("id"), int)]
        ids += range(len(ids) + 1, len(report.streams) + 1)
        sends = any(s.direction == "send" for s in report.streams)
        results: dict[str, Any] = {
            "cpu_util_total": cpu,
            "cpu_util_user": cpu,
            "cpu_util_system": 0.0,
            "sender_has_retransmits": 1 if sends and not report.params.udp else -1,
            "streams": [
                {"id": id_, **stream.results(report.seconds)}
                for id_, stream in zip(ids, report.streams, strict=False)
            ],
        }
        if report.params.congestion:
            results["congestion_used"] = report.params.congestion
        if report.params.server_output:
            results["server_output_text"] = "\n".join(report.lines()) + "\n"
        control.write_json(results)
        control.state(DISPLAY_RESULTS)
        with suppress(ProtocolError, OSError):  # IPERF_DONE; old clients just leave
            control.read(1)

    @contextmanager
    def _busy_to_others(self) -> Iterator[None]:
        """Answer ACCESS_DENIED to whoever connects while a test runs."""
        done = threading.Event()

        def refuse() -> None:
            self.listener.settimeout(0.25)
            while not done.is_set():
                try:
                    sock, _ = self.listener.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                with sock, suppress(OSError):
                    sock.settimeout(1.0)
                    sock.recv(COOKIE_SIZE)
                    sock.sendall(bytes([ACCESS_DENIED]))

        thread = threading.Thread(target=refuse, name="iperf3 busy", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    # ---- making the streams ----------------------------------------------------------------

    def _tcp_streams(
        self, control: Control, cookie: bytes, params: Params, stack: ExitStack
    ) -> list[Stream]:
        # Set on the listener, so that the accepted sockets inherit them before the SYN is
        # answered: a window scale cannot be changed later.
        with self._socket_options(params):
            control.state(CREATE_STREAMS)
            streams: list[Stream] = []
            directions = params.directions()
            self.listener.settimeout(_LOOK)
            patience = Patience(control)
            while len(streams) < len(directions):
                try:
                    sock, _ = self.listener.accept()
                except TimeoutError:
                    patience.check()
                    continue
                patience = Patience(control)
                sock.settimeout(_CONTROL_TIMEOUT)
                try:
                    mine = Control(sock).read(COOKIE_SIZE) == cookie
                except (ProtocolError, OSError):
                    mine = False
                if not mine:
                    with sock, suppress(OSError):
                        sock.sendall(bytes([ACCESS_DENIED]))
                    continue
                stack.enter_context(sock)
                self._configure(sock, params)
                limit = self._limit(params)
                streams.append(
                    TcpStream(
                        sock, directions[len(streams)], params.length, params.bandwidth, limit
                    )
                )
        return streams

    def _udp_streams(
        self, control: Control, cookie: bytes, params: Params, stack: ExitStack
    ) -> list[Stream]:
        port = UdpPort(self.api.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM), params.counters_64bit)
        stack.callback(port.close)
        port.sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        with suppress(OSError):
            port.sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, params.window or 4 << 20)
        port.sock.bind((self.address, self.port))
        control.state(CREATE_STREAMS)
        streams: list[Stream] = []
        for direction in params.directions():
            peer = None
            patience = Patience(control)
            while peer is None:
                try:
                    peer = port.greet(_LOOK)
                except TimeoutError:
                    patience.check()
            limit = self._limit(params)
            streams.append(UdpStream(port, peer, direction, params.length, params.bandwidth, limit))
        port.start()
        return streams

    @staticmethod
    def _limit(params: Params) -> int:
        """Bytes after which a stream of ours ends by itself (-n, -k: for all streams together)."""
        total = params.num or params.blockcount * params.length
        return -(-total // params.parallel) if total else 0

    @contextmanager
    def _socket_options(self, params: Params) -> Iterator[None]:
        listener = self.listener
        options = (stdlib.SO_RCVBUF, stdlib.SO_SNDBUF) if params.window else ()
        before = [listener.getsockopt(stdlib.SOL_SOCKET, o) for o in options]
        try:
            for option in options:
                listener.setsockopt(stdlib.SOL_SOCKET, option, params.window)
            if params.mss:
                try:
                    listener.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG, params.mss)
                except OSError as e:
                    raise ProtocolError(f"an MSS of {params.mss}: {e}", _IESETMSS) from None
            yield
        finally:
            for option, value in zip(options, before, strict=True):
                listener.setsockopt(stdlib.SOL_SOCKET, option, value // 2)
            if params.mss:
                listener.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG, 0)

    def _configure(self, sock: stdlib.socket, params: Params) -> None:
        # `Control`, which read its cookie, has set it.
        sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, int(params.nodelay))
        if params.tos:
            sock.setsockopt(stdlib.IPPROTO_IP, stdlib.IP_TOS, params.tos)
        if params.congestion:
            try:
                sock.setsockopt(
                    stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, params.congestion.encode()
                )
            except OSError as e:
                raise ProtocolError(f"congestion control {params.congestion}: {e}", 121) from None


def _name(value: object) -> str:
    """A name of the client's, of the characters that such names have."""
    text = str(value)
    if not text.isascii() or not text.isprintable() or len(text) > _MAX_NAME:
        raise ProtocolError("congestion is no name of a congestion control")
    return text


def serve(
    address: str = "",
    port: int = PORT,
    *,
    api: Any = None,
    one_off: bool = False,
    say: Callable[[str], None] | None = None,
    greeting: Callable[[int], Iterable[str]] | None = None,
) -> int:
    """`skbus serve iperf3`: serve until Ctrl-C, or one test; returns the exit status.

    api: None for `skbus.socket`, our stack. greeting: what is said when it listens, at a port.
    """
    if api is None:
        from skbus import socket

        api = socket
    out = say or (lambda line: print(line, flush=True))  # noqa: T201 what a person runs it for
    server = Server(address, port, api=api, say=out)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's & ignores the first
            signal.signal(number, signal.default_int_handler)
    try:
        for line in (
            greeting(server.port) if greeting else (f"iperf3 server on port {server.port}",)
        ):
            out(line)
        if one_off:
            return 1 if server.serve_one().error else 0
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0


def main() -> int:
    """`python -m skbus.serve.iperf3 [--linux] [--one-off] [PORT]`: the server without the CLI."""
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    api = stdlib if "--linux" in sys.argv else None
    port = int(words[0]) if words else PORT
    return serve(port=port, api=api, one_off="--one-off" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
