# SPDX-License-Identifier: MIT
"""Each kind of segment in each state is answered as Linux 6.18 answers it (`answers.py`)."""

import json

import pytest
from tests.services.tcp.answers import (
    ANSWERS,
    LOCAL,
    PORT,
    STATES,
    STEP,
    Player,
    scenarios,
)

from skbus.core import uapi
from skbus.core.syscall import RecvmsgArgs, SendmsgArgs
from skbus.packetdrill.backend import Addresses, Reply
from skbus.packetdrill.sim import SimBackend


class Ours:
    """Our stack in virtual time (`answers.Stack`)."""

    def __init__(self) -> None:
        self.backend = SimBackend(sysctl={"net.ipv4.tcp_timestamps": 0})
        self.backend.start(Addresses(), 1500)
        self.backend.begin()
        self.listener = self.child = -1

    def inject(self, packet: bytes) -> list[bytes]:
        self.backend.inject(packet)
        return self.sent()

    def sent(self) -> list[bytes]:
        self.backend.wait(self.backend.now() + int(STEP * 1e9))
        out = []
        while (packet := self.backend.sent()) is not None:
            out.append(packet[1])
        return out

    def sys(self, name: str, *args: object, data: bytes = b"") -> Reply:
        pending = self.backend.call(name, *args, data=data)
        assert pending.done
        return pending.reply

    def call(self, name: str) -> tuple[int, list[bytes]]:
        return self._call(name), self.sent()

    def _call(self, name: str) -> int:
        if name == "listen":
            self.child = -1
            if self.listener >= 0:
                self.sys("close", self.listener)
            self.listener = self.sys("socket", 2, 1, 0).result
            self.sys("setsockopt", self.listener, uapi.SOL_SOCKET, uapi.SO_REUSEADDR, b"\1\0\0\0")
            self.sys("bind", self.listener, (2, PORT, LOCAL))
            reply = self.sys("listen", self.listener, 8)
        elif name == "accept":
            reply = self.sys("accept4", self.listener, 0, 0)
            if not reply.errno:
                self.child = reply.result[0]
                return 0
        elif self.child < 0:
            return -9
        elif name == "read":
            reply = self.sys("recvmsg", *RecvmsgArgs(self.child, 1000, timeout=0))
            return -reply.errno or len(reply.data)
        elif name == "write":
            reply = self.sys("sendmsg", *SendmsgArgs(self.child, timeout=0), data=b"w" * 50)
            return -reply.errno or int(reply.result)
        elif name == "close":
            reply = self.sys("close", self.child)
        else:
            reply = self.sys("shutdown", self.child, 1)
        return -reply.errno


LINUX = json.loads(ANSWERS.read_text())


def test_all_are_there() -> None:
    assert list(LINUX) == list(scenarios())


@pytest.mark.parametrize("state", list(STATES))
def test_as_linux(state: str) -> None:
    wrong = []
    ours = Ours()
    for number, (name, steps) in enumerate(scenarios().items()):
        if name.rpartition(": ")[0] != state:
            continue
        found = Player(ours, 20_000 + number).play(steps)
        if found != LINUX[name]:
            wrong.append(f"{name}\n  linux {LINUX[name]}\n  ours  {found}")
    ours.backend.world.check_conservation()
    ours.backend.close()
    assert not wrong, "\n".join(wrong)
