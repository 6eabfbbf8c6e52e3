# SPDX-License-Identifier: MIT
"""Hostile requests at the system-call socket of a running stack, and at its life connections.

    python tests/fuzz/hostile.py [--count 1000000] [--seed 1]      in the stack of SKBUS_DIR

Kinds: random bytes; random msgpack; calls of the table with arguments of wrong types, at and beyond
their bounds, with negative lengths, with descriptors and places that are others'; another ABI;
requests cut short; frames that are too many or too long; identities of other clients, living and
dead; life connections that say nonsense and pass on descriptors of all kinds. What is answered
must be a reply as skbus.core.syscall has it, with an errno that exists and, where the request
itself is wrong, a sentence.

Prints a JSON line every 10,000 requests, with each process's memory, and one at the end. Beside it
a client of good will has an echo over the stack. Run by test_hostile_requests.py.
"""

import argparse
import errno
import json
import os
import random
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgpack
import zmq

from skbus import socket as sk
from skbus.bus.rundir import RunDir
from skbus.core.syscall import CALLS, MAX_DATA, SYS_ABI, encode_request
from skbus.stack import lab

BATCH: Final = 64
"""Requests that are under way."""
LIFE: Final = 1500
"""Requests of one client, before it ends and another begins."""
REPORT: Final = 10_000
EDGES: Final = (
    -(2**63), -(2**31) - 1, -(2**31), -65536, -256, -2, -1, 0, 1, 2, 3, 4, 6, 17, 255, 256, 1024,
    4096, 65535, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1,
)  # fmt: skip
NEVER: Final = frozenset({"barrier"})
"""Calls that go through all layers: seldom."""
SENDING: Final = frozenset({"sendmsg"})


class Hostile:
    """Makes requests, by chance."""

    def __init__(self, seed: int, host: bytes) -> None:
        self.rand = random.Random(seed)
        self.host = host
        self.names = sorted(CALLS)

    def value(self, depth: int = 0) -> Any:
        """Anything that msgpack can pack."""
        r = self.rand
        kind = r.randrange(9 if depth < 3 else 6)
        if kind == 0:
            return r.choice(EDGES)
        if kind == 1:
            return r.randbytes(r.choice((0, 1, 4, 16, 40)))
        if kind == 2:
            return r.choice(("", "socket", "x" * 50, "\0", "bind"))
        if kind == 3:
            return r.choice((None, True, False, 1.5, float("nan"), float("inf")))
        if kind == 4:
            return r.getrandbits(r.choice((3, 8, 16, 31, 63)))
        if kind == 5:
            return msgpack.ExtType(r.randrange(128), r.randbytes(3))
        if kind == 6:
            return {self.value(9): self.value(9) for _ in range(r.randrange(3))}
        return [self.value(depth + 1) for _ in range(r.randrange(5))]

    def place(self) -> tuple[int, ...]:
        """A place in a region of somebody's."""
        r = self.rand
        number = r.choice((r.getrandbits(32), r.getrandbits(31) | 1 << 31, 1, 2))
        return (number, r.randrange(600), r.choice((1, 3, 5, 2)), r.randrange(70), r.randrange(9))

    def argument(self, name: str, kind: int, low: int, high: int) -> Any:
        """One that may pass the table's check, or may not."""
        r = self.rand
        if r.random() < 0.06:
            return self.value()
        if kind == 0:
            if name == "fd":
                return r.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, r.choice(EDGES)))
            if name == "timeout":
                return r.choice((-1, 0, 0, 0, 1000, 10**6, 2**62))
            if name == "family":
                return r.choice((2, 2, 2, 1, 10, 16, 17, r.choice(EDGES)))
            if name == "type":
                return r.choice((1, 2, 2, 3, 4, 5, 10, 0x801, r.choice(EDGES)))
            if name in ("protocol", "level"):
                return r.choice((0, 0, 1, 2, 6, 17, 136, 255, r.choice(EDGES)))
            if name in ("vlen", "count"):
                return r.choice((1, 2, 8, 64, low - 1, high + 1, r.choice(EDGES)))
            if name == "flags" and r.random() < 0.3:
                return 0
            if name in ("len", "optlen", "controllen"):
                return r.choice((0, 1, 4, 100, 65536, 2**31 - 1, r.choice(EDGES)))
            return r.choice((low, high, low - 1, high + 1, r.randrange(70), r.choice(EDGES)))
        if kind == 1:
            return r.randbytes(r.choice((0, 1, 3, 4, 8, 12, 16, 136, 1000)))
        if kind == 2:
            addr = r.choice((bytes(4), self.host, b"\x7f\0\0\1", b"\xe0\0\0\x07", b"\xff" * 4,
                             r.randbytes(4), b"", bytes(16), bytes(7)))  # fmt: skip
            return r.choice(
                (None, (2, r.randrange(65536), addr), (r.choice((0, 1, 10, -1)), 5, addr))
            )
        if kind == 3:
            return [self.place() for _ in range(r.choice((0, 0, 1, 1, 3, 64, 65)))]
        if kind == 4:
            return [(r.choice((0, 1, 6, -1)), r.randrange(40), r.randbytes(r.randrange(30)))
                    for _ in range(r.choice((0, 0, 1, 2, 65)))]  # fmt: skip
        return [(r.randrange(-3, 12), r.choice((0, 1, 4, 5, 65535, 65536)))
                for _ in range(r.choice((0, 1, 5, 200)))]  # fmt: skip

    def call(self) -> tuple[str, list[Any]]:
        """A call of the table, with as many arguments as it takes, most of the time."""
        name = self.rand.choice(self.names)
        if name in NEVER and self.rand.random() < 0.98:
            name = "socket"
        args = [self.argument(a.name, a.kind, a.low, a.high) for a in CALLS[name]]
        if self.rand.random() < 0.03:
            args = args[:-1] if self.rand.random() < 0.5 else [*args, 0]
        return name, args

    def frames(self, req: int) -> tuple[str, list[bytes]]:
        """(kind, frames) of one request."""
        r = self.rand
        kind = r.random()
        if kind < 0.62:
            name, args = self.call()
            data = r.randbytes(r.choice((0, 0, 0, 10, 2000))) if name in SENDING else b""
            return "call", [encode_request(req, name, *args), *([data] if data else [])]
        if kind < 0.72:
            return "msgpack", [msgpack.packb(self.value(), strict_types=False)]
        if kind < 0.80:
            return "bytes", [r.randbytes(r.choice((0, 1, 5, 60, 300)))]
        if kind < 0.88:
            name, args = self.call()
            whole = encode_request(req, name, *args)
            return "cut short", [whole[: r.randrange(len(whole))]]
        if kind < 0.93:
            name, args = self.call()
            abi = r.choice((0, 2, -1, None, "1", 2**40, 1.0))
            return "abi", [msgpack.packb([abi, req, name, *args])]
        if kind < 0.97:
            return "frames", [r.randbytes(3) for _ in range(r.choice((1, 3, 5, 20)))]
        if kind < 0.995:
            return "number", [msgpack.packb([SYS_ABI, self.value(9), "close", 0])]
        length = r.choice((65537, MAX_DATA + 1))
        return "long", [encode_request(req, "close", 0), bytes(length)]


class Enemy:
    """One client that means harm: its life connection and its DEALER."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", run: RunDir) -> None:
        self.run = run
        self.id = b"C" + os.urandom(15)
        self.life = socket.socket(socket.AF_UNIX)
        self.life.settimeout(60)
        self.life.connect(str(run.life))
        self.life.sendall(self.id)
        self.life.recv(8)
        self.dealer = self.socket(context, self.id + bytes([0, 0, 0, 1]))
        self.prepare()

    def socket(
        self, context: "zmq.Context[zmq.Socket[bytes]]", identity: bytes
    ) -> "zmq.Socket[bytes]":
        sock = context.socket(zmq.DEALER)
        sock.setsockopt(zmq.IDENTITY, identity)
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(self.run.syscall_endpoint)
        return sock

    def prepare(self) -> None:
        """Sockets to be hostile with: streams, one that listens, datagrams, raw, ping."""
        kinds = ((2, 1, 0), (2, 1, 0), (2, 2, 0), (2, 2, 17), (2, 2, 136), (2, 3, 1), (2, 2, 1))
        for req, kind in enumerate(kinds):
            self.dealer.send(encode_request(req, "socket", *kind))
        self.dealer.send(encode_request(90, "listen", 0, 5))
        self.dealer.send(encode_request(91, "bind", 2, (2, 0, bytes(4))))
        for _ in range(len(kinds) + 2):
            if not self.dealer.poll(60_000):
                raise TimeoutError("the socket layer does not answer")
            self.dealer.recv_multipart()

    def close(self) -> None:
        self.life.close()
        self.dealer.close()


class Campaign:
    """All of it."""

    def __init__(self, run: RunDir, pids: dict[str, int], seed: int, host: str) -> None:
        self.run = run
        self.pids = pids
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.hostile = Hostile(seed, socket.inet_aton(host))
        self.rand = random.Random(seed + 1)
        self.answers: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.unanswered = 0
        self.history: list[tuple[int, dict[str, int]]] = []
        self.dead: list[bytes] = []
        self.friend, self.echo = friend(host)

    def check(self, frames: list[bytes]) -> None:
        """Is that a reply? An answer to nonsense must say what is wrong with it."""
        abi, req, err, result = msgpack.unpackb(frames[0], use_list=False, strict_map_key=False)
        if abi != SYS_ABI or type(req) is not int or type(err) is not int:
            raise ValueError(f"no reply: {frames!r:.200}")
        if err and err not in errno.errorcode:
            raise ValueError(f"no errno: {err} {result}")
        if err and result is not None and type(result) is not str:
            raise ValueError(f"no sentence: {err} {result!r}")
        self.answers[errno.errorcode[err] if err else "0"] += 1

    def batch(self, enemy: Enemy, count: int, first: int) -> None:
        """Send so many, and take the answers; calls that wait are left to wait."""
        for i in range(count):
            kind, frames = self.hostile.frames(first + i)
            self.kinds[kind] += 1
            enemy.dealer.send_multipart(frames)
        # A call that surely answers, behind all the others.
        last = 2**62 + first
        enemy.dealer.send(encode_request(last, "getsockname", 2**31 - 1))
        deadline = time.monotonic() + 60
        answered = 0
        while True:
            if not enemy.dealer.poll(max(int((deadline - time.monotonic()) * 1000), 0)):
                raise TimeoutError("the socket layer does not answer")
            reply = enemy.dealer.recv_multipart()
            self.check(reply)
            if msgpack.unpackb(reply[0], use_list=False, strict_map_key=False)[1] == last:
                self.unanswered += count - answered
                return
            answered += 1

    def impostors(self, enemy: Enemy) -> None:
        """Identities that are others': a dead client's, none's, and one that is in use."""
        r = self.rand
        identities = [b"X" + os.urandom(11), enemy.id + bytes([0, 0, 0, 1]), enemy.id[:15]]
        if self.dead:
            identities.append(r.choice(self.dead) + bytes([0, 0, 0, 1]))
        for identity in identities:
            with enemy.socket(self.context, identity) as sock:
                sock.send(encode_request(1, "socket", 2, 1, 0))
                sock.send(encode_request(2, "close", 0))
                if identity[:16] != enemy.id:
                    if not sock.poll(60_000):
                        raise TimeoutError("nobody answers an unknown identity")
                    reply = msgpack.unpackb(sock.recv_multipart()[0])
                    if reply[2] != errno.ENOTCONN:
                        raise ValueError(f"an impostor was let in: {reply}")

    def lives(self, enemy: Enemy) -> None:
        """Life connections of all kinds; the enemy's own, with descriptors that are none."""
        r = self.rand
        for words in (b"", b"x", r.randbytes(16), r.randbytes(60), enemy.id):
            with socket.socket(socket.AF_UNIX) as life:
                life.settimeout(60)
                life.connect(str(self.run.life))
                life.sendall(words)
        with tempfile.TemporaryFile() as file, socket.socket(type=socket.SOCK_DGRAM) as udp:
            a, b = socket.socketpair(
                socket.AF_UNIX, r.choice((socket.SOCK_STREAM, socket.SOCK_DGRAM))
            )
            with a, b:
                ends = [a.fileno(), b.fileno()]
                for fds in ([file.fileno()] * 2, [udp.fileno()] * 2, ends, ends[:1], ends * 2, []):
                    message = struct.pack("=iI", r.choice((0, 1, 2, -1, 2**31 - 1)), 7)
                    socket.send_fds(enemy.life, [message], fds)
                    err, token = struct.unpack("=II", enemy.life.recv(8))
                    if token != 7 or (err and err not in errno.errorcode):
                        raise ValueError(f"poll_open answered {err}, {token}")

    def good(self) -> None:
        """The client of good will still has its echo."""
        text = os.urandom(100)
        self.friend.sendall(text)
        if self.echo.recv(100, socket.MSG_WAITALL) != text:
            raise ValueError("the friend's bytes are not what was sent")
        self.echo.sendall(text)
        if self.friend.recv(100, socket.MSG_WAITALL) != text:
            raise ValueError("the friend's bytes are not what was sent")

    def go(self, count: int) -> None:
        sent = 0
        started = time.monotonic()
        while sent < count:
            enemy = Enemy(self.context, self.run)
            try:
                self.impostors(enemy)
                for _ in range(0, LIFE, BATCH):
                    n = min(BATCH, count - sent)
                    if not n:
                        break
                    self.batch(enemy, n, sent)
                    sent += n
                    if sent // REPORT != (sent - n) // REPORT or sent == count:
                        self.good()
                        self.history.append((sent, memory(self.pids)))
                        say(sent=sent, memory=self.history[-1][1])
                self.lives(enemy)
            finally:
                self.dead.append(enemy.id)
                del self.dead[:-50]
                enemy.close()
        self.good()
        say(done=True, sent=sent, seconds=round(time.monotonic() - started, 1),
            kinds=dict(self.kinds), answers=dict(self.answers.most_common()),
            unanswered=self.unanswered)  # fmt: skip
        self.friend.close()
        self.echo.close()


def friend(host: str) -> tuple[sk.socket, sk.socket]:
    """Two ends of a connection over the stack."""
    with sk.create_server((host, 0)) as listener:
        one = sk.create_connection(listener.getsockname())
        two, _ = listener.accept()
    for end in (one, two):
        end.settimeout(60)
    return one, two


def memory(pids: dict[str, int]) -> dict[str, int]:
    """Anonymous resident memory of each process, KiB."""
    found = {}
    for name, pid in pids.items():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                found[name] = int(line.split()[1])
    return found


def slope(samples: list[tuple[int, int]]) -> float:
    """Bytes a request, by least squares over (requests, KiB)."""
    if len(samples) < 2:
        return 0.0
    n = len(samples)
    mx = sum(x for x, _ in samples) / n
    my = sum(y for _, y in samples) / n
    over = sum((x - mx) ** 2 for x, _ in samples)
    return 1024 * sum((x - mx) * (y - my) for x, y in samples) / over


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="at the end, for people")
    options = parser.parse_args(argv)
    run = RunDir().require()
    status = lab.status(run)
    pids = {k: v for k, v in status["pids"].items() if k not in ("holder", "peer")}
    campaign = Campaign(run, pids, options.seed, status["address"])
    campaign.go(options.count)
    say(alive=lab.status(run)["pids"] == status["pids"])
    if options.table:
        table(campaign.history, options.count)


def table(history: list[tuple[int, dict[str, int]]], count: int) -> None:
    """Memory of each process after the first fifth, for people."""
    samples = [(sent, found) for sent, found in history if sent >= min(count // 5, 100_000)]
    lines = [f"{'process':<12}{'KiB first':>12}{'KiB last':>12}{'bytes a request':>18}"]
    for name in samples[0][1]:
        points = [(sent, found[name]) for sent, found in samples]
        lines.append(f"{name:<12}{points[0][1]:>12}{points[-1][1]:>12}{slope(points):>18.3f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
