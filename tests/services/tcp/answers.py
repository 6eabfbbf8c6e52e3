# SPDX-License-Identifier: MIT
"""What Linux answers to each kind of segment in each state: the scenarios, and a run of them.

`answers.json` holds Linux 6.18's, which the running kernel writes anew as root:

    unshare -n python tests/services/tcp/answers.py

The kernel is at the other end of a TUN device there, and what an application does are its own
system calls. `test_answers.py` plays the same to our stack in simulation. Windows are left out:
they depend on how much memory a segment takes; and so is what timers send later.
"""

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from skbus.core.checksum import csum_partial, csum_tcpudp_magic
from skbus.inet.headers import ipv4, tcp

ANSWERS: Final = Path(__file__).with_name("answers.json")
LOCAL, REMOTE = socket.inet_aton("192.168.0.1"), socket.inet_aton("192.0.2.1")
PORT: Final = 8080
ISN: Final = 0x7FFFFFF0
"""The peer's: numbers are signed soon after."""
FLAGS: Final = "FSRP.U"
STEP: Final = 0.006
"""Seconds in which an answer comes, if it does; more than a tick of the kernel's."""


class Segment(NamedTuple):
    """From the peer; numbers are relative to the SYNs."""

    flags: str
    seq: int
    ack: int = 0
    size: int = 0
    urg: int = 0


Step = Segment | str
"""A segment, or what the application does."""
Answer = list[str]


class Stack(Protocol):
    """What is asked."""

    def inject(self, packet: bytes) -> list[bytes]:
        """A packet comes; what is sent at once."""

    def call(self, name: str) -> tuple[int, list[bytes]]:
        """A system call: what it returns, or -errno; what is sent at once."""


def established() -> list[Step]:
    return ["listen", Segment("S", 0), Segment(".", 1, 1), "accept"]


STATES: Final[dict[str, tuple[list[Step], int, int]]] = {
    "SYN_RECV": (["listen", Segment("S", 0)], 1, 1),
    "ESTABLISHED": (established(), 1, 1),
    "ESTABLISHED, data out": ([*established(), "write"], 1, 1),
    "ESTABLISHED, data unread": ([*established(), Segment("P.", 1, 1, 20)], 21, 1),
    "FIN_WAIT1": ([*established(), "shutdown"], 1, 1),
    "FIN_WAIT1, orphan": ([*established(), "close"], 1, 1),
    "FIN_WAIT2": ([*established(), "shutdown", Segment(".", 1, 2)], 1, 2),
    "FIN_WAIT2, orphan": ([*established(), "close", Segment(".", 1, 2)], 1, 2),
    "CLOSING": ([*established(), "shutdown", Segment("F.", 1, 1)], 2, 1),
    "TIME_WAIT": ([*established(), "close", Segment("F.", 1, 2)], 2, 2),
}
"""How a state is reached, and the next numbers of both sides there."""


def segments(s: int, a: int) -> list[Segment]:
    """Each kind of segment, for the next numbers `s` and `a`."""
    return [
        Segment("R", s), Segment("R", s + 100), Segment("R", s - 1), Segment("R.", s, a),
        Segment("R", s + 100_000), Segment("R", s + 64_220), Segment("SR", s + 100),
        Segment("S", s - 100), Segment("S", s), Segment("S", s + 100), Segment("S", s + 100_000),
        Segment("SF", s + 100), Segment("SF", s - 1), Segment("S.", s + 100, a),
        Segment("S.", s - 1, a), Segment("SF.", s, a), Segment(".", s, a), Segment(".", s - 5, a),
        Segment(".", s, a + 500), Segment(".", s, a - 200_000), Segment(".", s + 64_240, a),
        Segment("F.", s, a), Segment("F.", s - 1, a), Segment("F.", s + 20, a), Segment("F", s),
        Segment("P.", s, a, 30), Segment("P.", s - 10, a, 5), Segment("P.", s - 10, a, 50),
        Segment("P.", s + 20, a, 30), Segment("P.", s + 100_000, a, 30), Segment("P", s, 0, 30),
        Segment("FP.", s, a, 30), Segment("U.", s, a, 3, 2), Segment("", s), Segment("FPU", s),
        Segment("FSRP.U", s, a),
    ]  # fmt: skip


def scenarios() -> dict[str, list[Step]]:
    """By name: a state, then a segment twice, and what is left of the connection."""
    found: dict[str, list[Step]] = {}
    for state, (steps, s, a) in STATES.items():
        for seg in segments(s, a):
            name = f"{state}: {seg.flags or 'none'} {seg.seq - s}({seg.size}) ack {seg.ack - a}"
            found[name] = [*steps, seg, seg, "read", Segment(".", s, a)]
    return found


class Player:
    """A scenario, from the peer's side."""

    def __init__(self, stack: Stack, port: int) -> None:
        self.stack = stack
        self.port = port
        self.local_isn: int | None = None

    def play(self, steps: list[Step]) -> list[Answer]:
        out: list[Answer] = []
        for step in steps:
            if isinstance(step, str):
                value, packets = self.stack.call(step)
                out.append([f"= {value}", *self.seen(packets)])
            else:
                out.append(self.seen(self.stack.inject(self.packet(step))))
        return out

    def packet(self, seg: Segment) -> bytes:
        flags = sum(1 << FLAGS.index(c) for c in seg.flags)
        ack = (seg.ack + (self.local_isn or 0)) & 0xFFFFFFFF if "." in seg.flags else 0
        options = b""
        if "S" in seg.flags:
            options = tcp.build_options(tcp.TcpOptions(mss=1000, sack_ok=True, wscale=7))
        head = tcp.build(
            self.port, PORT, (ISN + seg.seq) & 0xFFFFFFFF, ack, flags, 1000, options, seg.urg
        )
        body = bytearray(head + b"d" * seg.size)
        check = csum_tcpudp_magic(REMOTE, LOCAL, len(body), 6, csum_partial(bytes(body)))
        body[16:18] = check.to_bytes(2, "big")
        return ipv4.build(REMOTE, LOCAL, 6, 20 + len(body), frag_off=0x4000) + bytes(body)

    def seen(self, packets: list[bytes]) -> list[str]:
        return [text for packet in packets if (text := self.text(packet))]

    def text(self, packet: bytes) -> str:
        """A packet of the stack's, as far as it must be alike; "" for another connection's."""
        if packet[0] >> 4 != 4:
            return ""
        iph = ipv4.parse(packet)
        if iph.protocol != 6 or iph.daddr != REMOTE:
            return ""
        th = tcp.parse(packet, iph.ihl)
        if th.dest != self.port:
            return ""
        flags = "".join(c for i, c in enumerate(FLAGS) if th.flags >> i & 1)
        if "S" in flags and self.local_isn is None:
            self.local_isn = th.seq
        seq = _signed(th.seq - (self.local_isn or 0))
        if not th.seq or ("S" in flags and seq):
            seq = 0  # a RST that has no number; the first one of a new connection
        text = f"{flags} {seq}({iph.tot_len - iph.ihl - th.doff})"
        if th.flags & 16:
            text += f" ack {_signed(th.ack_seq - ISN)}"
        opt = tcp.parse_options(packet[iph.ihl + 20 : iph.ihl + th.doff], "S" in flags)
        return text + "".join(f" {_signed(x - ISN)}:{_signed(y - ISN)}" for x, y in opt.sacks)


def _signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


class Kernel:
    """The kernel of a network namespace, through a TUN device."""

    def __init__(self) -> None:
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tun, 0x400454CA, struct.pack("16sH22s", b"tun0", 0x1001, b""))
        for line in (
            "ip addr add 192.168.0.1/16 dev tun0",
            "ip link set tun0 up mtu 1500",
            "ip route add default via 192.168.0.2",
            "sysctl -qw net.ipv4.tcp_timestamps=0",
        ):
            subprocess.run(line.split(), check=True)
        self.listener: socket.socket | None = None
        self.child: socket.socket | None = None

    def inject(self, packet: bytes) -> list[bytes]:
        os.write(self.tun, packet)
        return self.sent()

    def sent(self) -> list[bytes]:
        out = []
        end = time.monotonic() + STEP
        while (left := end - time.monotonic()) > 0:
            if select.select([self.tun], [], [], left)[0]:
                out.append(os.read(self.tun, 65536))
        return out

    def call(self, name: str) -> tuple[int, list[bytes]]:
        try:
            value = self._call(name)
        except OSError as e:
            value = -(e.errno or 0)
        return value, self.sent()

    def _call(self, name: str) -> int:
        if name == "listen":
            self.child = None
            if self.listener is not None:
                self.listener.close()
            self.listener = socket.create_server(("192.168.0.1", PORT), backlog=8)
            self.listener.setblocking(False)
        elif name == "accept":
            assert self.listener is not None
            self.child, _ = self.listener.accept()
            self.child.setblocking(False)
        elif self.child is None or self.child.fileno() < 0:
            return -9
        elif name == "read":
            return len(self.child.recv(1000))
        elif name == "write":
            return self.child.send(b"w" * 50)
        elif name == "close":
            self.child.close()
        else:
            self.child.shutdown(socket.SHUT_WR)
        return 0


def main() -> None:
    kernel = Kernel()
    found = {}
    for number, (name, steps) in enumerate(scenarios().items()):
        found[name] = Player(kernel, 20_000 + number).play(steps)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(x)}" for name, x in found.items())
    ANSWERS.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
