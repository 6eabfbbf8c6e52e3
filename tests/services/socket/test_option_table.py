# SPDX-License-Identifier: MIT
"""Every socket option on our stack and on the machine's own: the same answers, but for the
differences listed here, each with its reason (docs/socket-options.md has them too)."""

import asyncio
import ctypes
import errno
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from skbus.bus.linux import CLONE_NEWNET, setns, unshare
from skbustest.host import Host
from skbustest.option_table import (
    ANY,
    KINDS,
    OPTIONS,
    SOL_UDP,
    UNKNOWN,
    Get,
    Option,
    Set,
    transcript,
)
from skbustest.world import World

DIFFERENT = {
    (".*", "SO_LINGER", "3: .*"): "the machine's seconds overflow in jiffies; ours are the most",
    (".*", "SO_(RCV|SND)TIMEO", "2: .*"): "the machine's timeouts are whole jiffies, ours ns",
    ("stream|dgram", "SO_PEEK_OFF", ".*"): "not offered: EOPNOTSUPP, as raw sockets say",
    ("stream", "SO_SNDBUF", "get"): "a stream begins with the buffer that ten segments grow it to",
    (
        "stream",
        "(IP|MCAST)_(ADD|DROP|JOIN|LEAVE|BLOCK|UNBLOCK)_(SOURCE|GROUP).*",
        ".*",
    ): "a stream can be in no group here",
    ("stream", "TCP_CONGESTION", "get"): "the default is each stack's own sysctl",
    ("stream", "TCP_REPAIR", ".*"): "not offered: skbus connections are not taken over by others",
    ("stream", "TCP_FASTOPEN_KEY", "get"): "ours is made at start, the machine's when first used",
}
"""(kinds, option, what is done), each a pattern -> the reason."""

SYSCTLS = (
    "net.core.rmem_default", "net.core.rmem_max", "net.core.wmem_default", "net.core.wmem_max",
    "net.ipv4.ip_default_ttl", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_syn_retries", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_fastopen",
    "net.core.somaxconn", "net.ipv4.ping_group_range",
)  # fmt: skip
"""Our stack has the machine's values of these."""


def machine_sysctls() -> dict[str, object]:
    found: dict[str, object] = {}
    for name in SYSCTLS:
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists():
            found[name] = " ".join(path.read_text().split())
    return found


class Machine:
    """A socket of the kernel. getsockopt(2) itself, as Python's takes no length of 0."""

    libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, kind: str) -> None:
        self.sock = socket.socket(socket.AF_INET, *KINDS[kind])

    async def set(self, level: int, number: int, value: bytes) -> None:
        self.sock.setsockopt(level, number, value)

    async def get(self, level: int, number: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(max(size, 1))
        length = ctypes.c_uint(size)
        fd = self.sock.fileno()
        if self.libc.getsockopt(fd, level, number, buffer, ctypes.byref(length)):
            raise OSError(ctypes.get_errno(), "getsockopt")
        return buffer.raw[: length.value]


def of_machine(kind: str, option: Option) -> dict[str, str]:
    machine = Machine(kind)
    with machine.sock:
        return asyncio.run(transcript(option, machine.set, machine.get))


async def of_stack(host: Host, kind: str, option: Option) -> dict[str, str]:
    sock = await host.socket(*KINDS[kind])
    set_: Set = sock.setsockopt
    get: Get = sock.getsockopt
    answers = await transcript(option, set_, get)
    await sock.close()
    return answers


def reason(kind: str, name: str, what: str) -> str | None:
    """Why an answer may differ from the machine's."""
    for (kinds, option, done), why in DIFFERENT.items():
        if all(map(re.fullmatch, (kinds, option, done), (kind, name, what))):
            return why
    return None


@contextmanager
def where_all_may_ping() -> Iterator[None]:
    """In a network namespace of our own, in which everybody may have a ping socket."""
    with open("/proc/self/ns/net") as home:
        unshare(CLONE_NEWNET)
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
            yield
        finally:
            setns(home.fileno())


@pytest.mark.parametrize("kind", ANY)
def test_options_are_as_on_the_machine(kind: str) -> None:
    if os.geteuid():
        pytest.skip("the stack's client has capabilities, and so must we")
    wrong = []
    with where_all_may_ping() if kind == "ping" else nullcontext(), World(1) as world:
        host = world.host("a", "10.0.0.1/24", sysctl=machine_sysctls())
        world.host("b", "10.0.0.2/24")
        world.link(*world.hosts.values())
        for option in OPTIONS:
            if kind not in option.kinds:
                continue
            ours = world.run(world.start(of_stack(host, kind, option)))
            assert ours is not None
            theirs = of_machine(kind, option)
            for what, answer in theirs.items():
                if ours[what] != answer and reason(kind, option.name, what) is None:
                    wrong.append(f"{option.name}, {what}: {ours[what]}, the machine: {answer}")
    assert not wrong, "\n".join(wrong)


async def what_is_known(host: Host) -> list[str]:
    """Those of UNKNOWN of which our stack says anything but ENOPROTOOPT."""
    known = []
    for level, options in UNKNOWN.items():
        for name, number in options.items():
            sock = await host.socket(*KINDS["dgram" if level == SOL_UDP else "stream"])
            for call in (sock.setsockopt(level, number, bytes(64)), sock.getsockopt(level, number)):
                try:
                    await call
                except OSError as e:
                    if e.errno == errno.ENOPROTOOPT:
                        continue
                known.append(name)
            await sock.close()
    return known


def test_the_page_lists_what_is_not_known() -> None:
    """docs/socket-options.md, "Options that are not known"."""
    page = Path(__file__).parents[3] / "docs" / "socket-options.md"
    section = page.read_text().split("\n## Options that are not known\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"\b(?:SO|IP|TCP|UDP)_[A-Z0-9_]+", section))
    assert listed == {name for options in UNKNOWN.values() for name in options}
    with World(1) as world:
        host = world.host("a", "10.0.0.1/24")
        world.host("b", "10.0.0.2/24")
        world.link(*world.hosts.values())
        known = world.run(world.start(what_is_known(host)))
    assert known == [], "known now: take it out of UNKNOWN (option_table.py) and of the page"
