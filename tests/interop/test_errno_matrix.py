# SPDX-License-Identifier: MIT
"""socket(2), every family x type x protocol: our socket layer answers as the Linux of this machine
does, with CAP_NET_RAW and without it.

Linux is asked in a network namespace of its own, by a program that calls libc's socket(). Ours is
the socket layer's core, asked by the same requests that applications send. What differs is listed
in DIFFERENCES, with the reason, and in docs/socket-layer.md.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from skbus.core.pool import Pool
from skbus.core.syscall import SysCallError, decode_reply, encode_request
from skbus.core.sysctl import Sysctl
from skbusd.socket.core import SocketCore
from skbusd.socket.files import Cred
from skbusd.socket.netns import SocketNet
from skbusd.socket.socket import NetProtoFamily, Socket, sock_register, sock_unregister

Triple = tuple[int, int, int]
"""(family, type, protocol)"""

AF_INET: Final = 2
INT_MIN, INT_MAX = -(2**31), 2**31 - 1

FAMILIES: Final = {
    1: "AF_UNIX", 3: "AF_AX25", 4: "AF_IPX", 5: "AF_APPLETALK", 6: "AF_NETROM", 8: "AF_ATMPVC",
    9: "AF_X25", 10: "AF_INET6", 11: "AF_ROSE", 15: "AF_KEY", 16: "AF_NETLINK", 17: "AF_PACKET",
    20: "AF_ATMSVC", 21: "AF_RDS", 23: "AF_IRDA", 24: "AF_PPPOX", 26: "AF_LLC", 27: "AF_IB",
    28: "AF_MPLS", 29: "AF_CAN", 30: "AF_TIPC", 31: "AF_BLUETOOTH", 32: "AF_IUCV",
    33: "AF_RXRPC", 35: "AF_PHONET", 36: "AF_IEEE802154", 37: "AF_CAIF", 38: "AF_ALG",
    39: "AF_NFC", 40: "AF_VSOCK", 41: "AF_KCM", 42: "AF_QIPCRTR", 43: "AF_SMC", 44: "AF_XDP",
    45: "AF_MCTP",
}  # fmt: skip
"""Families that a Linux may have and we have not: we answer as a Linux without them."""

PROTOCOLS: Final = {
    (1, 132): "IPPROTO_SCTP", (5, 132): "IPPROTO_SCTP", (6, 33): "IPPROTO_DCCP",
    (2, 115): "IPPROTO_L2TP", (1, 256): "IPPROTO_SMC", (1, 262): "IPPROTO_MPTCP",
    (5, 0): "IPPROTO_SCTP", (6, 0): "IPPROTO_DCCP",
}  # fmt: skip
"""Likewise types and protocols of AF_INET."""

SOCK_PACKET: Final = 10

PROBE: Final = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
asked, limit = json.load(sys.stdin)
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    while libc.socket(2, 2, 0) >= 0:
        pass
answers = []
for triple in asked:
    fd = libc.socket(*triple)
    answers.append(0 if fd >= 0 else ctypes.get_errno())
    if fd >= 0:
        os.close(fd)
json.dump(answers, sys.stdout)
"""


def linux(asked: list[Triple], *, capable: bool, groups: str = "", limit: int = 0) -> list[int]:
    """What this machine's socket(2) answers: errnos, 0 for a descriptor."""
    root = os.geteuid() == 0
    if not capable:
        enter = ["unshare", "--user", "--net"]  # nobody there, so without capabilities
    else:
        enter = ["unshare", "--net"] if root else ["unshare", "--user", "--map-root-user", "--net"]
    command = [sys.executable, "-c", PROBE]
    if groups:
        script = f'echo {groups} > /proc/sys/net/ipv4/ping_group_range && exec "$@"'
        command = ["sh", "-c", script, "sh", *command]
    run = subprocess.run(
        [*enter, *command], input=json.dumps([asked, limit]), capture_output=True, text=True
    )
    if run.returncode and "unshare" in run.stderr:
        pytest.skip(f"no namespaces here: {run.stderr.strip()}")
    assert not run.returncode, run.stderr
    found: list[int] = json.loads(run.stdout)
    return found


class Ours:
    """The socket layer with one application."""

    def __init__(self, *, capable: bool, groups: str = "", limit: int = 0) -> None:
        sysctl: dict[str, Any] = {"fs.nr_open": limit or 65536}
        if groups:
            sysctl["net.ipv4.ping_group_range"] = groups
        self.net = SocketNet(rand=Random(1), pool=Pool(), sysctl=Sysctl(sysctl))
        self.core = SocketCore(self.net)
        self.core.start()
        self.core.client_up(b"A" * 16, Cred(0 if capable else 65534, (), capable))
        self.asked: list[str] = []
        self.net.modprobe = self._modprobe
        while limit and not self.call("socket", AF_INET, 2, 0)[0]:
            pass

    def _modprobe(self, name: str) -> bool:
        self.asked.append(name)
        return False

    def call(self, name: str, *args: int) -> tuple[int, Any]:
        self.core.request(b"A" * 16 + b"\0", encode_request(1, name, *args), b"")
        ((_, meta, _),) = self.net.replies
        self.net.replies.clear()
        self.net.outbox.clear()
        _, err, result = decode_reply(meta)
        return err, result

    def socket(self, triple: Triple) -> int:
        err, fd = self.call("socket", *triple)
        if not err:
            assert not self.call("close", fd)[0]
        return err


def difference(triple: Triple) -> str:
    """Whose answer may differ, "" for nobody's."""
    family, type, protocol = triple
    if family == AF_INET and type & 0xF == SOCK_PACKET:
        family = 17
    if family in FAMILIES:
        return FAMILIES[family]
    return PROTOCOLS.get((type & 0xF, protocol), "") if family == AF_INET else ""


def compare(asked: list[Triple], **how: Any) -> dict[Triple, tuple[int, int]]:
    """Ask both; the answers that differ and may, as (ours, Linux's). Fails for any other."""
    ours = Ours(**how)
    mine = [ours.socket(triple) for triple in asked]
    wrong: dict[Triple, tuple[int, int]] = {}
    allowed: dict[Triple, tuple[int, int]] = {}
    for triple, a, b in zip(asked, mine, linux(asked, **how), strict=True):
        if a != b:
            (allowed if difference(triple) else wrong)[triple] = (a, b)
    names = {
        t: tuple(errno.errorcode.get(e, "a socket") for e in pair) for t, pair in wrong.items()
    }
    assert not names, f"(family, type, protocol): (ours, Linux's): {names}"
    assert not ours.net.limits.sockets_in_use or how.get("limit")
    return allowed


def inet_matrix() -> list[Triple]:
    """AF_INET: every type, with every protocol there is and some that there are not."""
    everything = [INT_MIN, -1, *range(264), 264, 512, 65536, INT_MAX]
    # A packet socket takes Linux 13 ms to close.
    few = [-1, 0, 1, 6, 17, 255, 263]
    return [
        (AF_INET, type, protocol)
        for type in range(16)
        for protocol in (few if type == SOCK_PACKET else everything)
    ]


def family_matrix() -> list[Triple]:
    """Every family and some that there are not, with every type, and protocols 0, 1 and 300."""
    families = [INT_MIN, -1, *range(50), 255, INT_MAX]
    return [
        (family, type, protocol)
        for family in families
        for type in range(12)
        for protocol in ((0,) if family in (17, 44) else (0, 1, 300))
    ]


def flag_matrix() -> list[Triple]:
    """SOCK_NONBLOCK, SOCK_CLOEXEC, both, and bits that mean nothing."""
    flags = [0o4000, 0o2000000, 0o2004000, 0x10, 0x20, 0x40, 0x80, 0x100, 0x1000, 1 << 30]
    return [
        (family, type | flag, protocol)
        for family in (AF_INET, 46, 0)
        for type in (0, 1, 2, 3, 4, 11, 15)
        for flag in flags
        for protocol in (0, 6, 17)
    ] + [(AF_INET, type, 0) for type in (INT_MIN, -1, -2, 16, 17, INT_MAX)]


@pytest.mark.lab
@pytest.mark.parametrize("capable", [True, False])
@pytest.mark.parametrize("matrix", [inet_matrix, family_matrix, flag_matrix])
def test_socket_answers_as_linux_does(matrix: Any, capable: bool) -> None:
    asked = matrix()
    allowed = compare(asked, capable=capable)
    for (family, type, _), (ours, _) in allowed.items():
        # What we do not have we refuse as a Linux that does not have it.
        if family != AF_INET or type & 0xF == SOCK_PACKET:
            assert ours in (errno.EAFNOSUPPORT, errno.EINVAL)
        else:
            assert ours in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


@pytest.mark.lab
@pytest.mark.parametrize("groups", ["0 0", "1 0", "1 100"])
def test_who_may_have_a_ping_socket(groups: str) -> None:
    asked = [(AF_INET, 2, 1), (AF_INET, 2, 0), (AF_INET, 1, 1), (AF_INET, 3, 1)]
    if os.geteuid() and groups != "0 0":
        pytest.skip("a user namespace of an ordinary user knows one group")
    assert not compare(asked, capable=True, groups=groups)


@pytest.mark.lab
@pytest.mark.parametrize("capable", [True, False])
def test_a_full_descriptor_table(capable: bool) -> None:
    """EMFILE comes after whatever else is wrong."""
    asked = [
        (family, type, protocol)
        for family in (AF_INET, 0, 46, -1)
        for type in (0, 1, 2, 3, 4, 11, 17)
        for protocol in (-1, 0, 6, 17, 255, 263)
    ]
    limit = 32
    assert not compare(asked, capable=capable, limit=limit)
    ours = Ours(capable=capable, limit=limit)
    assert ours.socket((AF_INET, 1, 0)) == errno.EMFILE
    assert len(ours.net.socks) == limit  # and nothing is left of those that were refused


CLIENT: Final = """
import json, sys
from skbus import socket
answers = []
for family, type, protocol in json.load(sys.stdin):
    try:
        socket.socket(family, type, protocol).close()
        answers.append(0)
    except OSError as e:
        answers.append(e.errno)
json.dump(answers, sys.stdout)
"""


@pytest.mark.lab
def test_a_running_stack_answers_so_too(clean_lab: Any) -> None:
    """A part of the matrix, by an application of a running stack, who is root."""
    asked = [
        triple
        for triple in (*inet_matrix(), *family_matrix(), *flag_matrix())
        if min(triple) >= 0 and not difference(triple) and (triple[2] < 8 or triple[2] > 253)
    ][::7]
    assert len(asked) > 100
    groups = "0 2147483647" if os.geteuid() == 0 else "0 0"
    run = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(asked),
        env={**os.environ, **clean_lab.env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not run.returncode, run.stderr
    mine = json.loads(run.stdout)
    theirs = linux(asked, capable=True, groups=groups)
    assert dict(zip(asked, mine, strict=True)) == dict(zip(asked, theirs, strict=True))


@pytest.mark.parametrize("capable", [True, False])
def test_the_matrix_without_linux(capable: bool) -> None:
    """What every Linux answers, by rule instead of by asking it."""
    ours = Ours(capable=capable)
    good = {1: {0, 6}, 2: {0, 17, 136}, 3: set(range(1, 263))}
    for triple in inet_matrix():
        _, type, protocol = triple
        if type > SOCK_PACKET:
            want = errno.EINVAL
        elif type == SOCK_PACKET:
            want = errno.EAFNOSUPPORT
        elif not 0 <= protocol < 263:
            want = errno.EINVAL
        elif type not in good:
            want = errno.ESOCKTNOSUPPORT
        elif type == 2 and protocol == 1:
            want = errno.EACCES
        elif protocol not in good[type]:
            want = errno.EPROTONOSUPPORT
        else:
            want = errno.EPERM if type == 3 and not capable else 0
        assert ours.socket(triple) == want, triple


def test_plug_ins_are_asked_for_twice_at_most() -> None:
    ours = Ours(capable=True)
    for triple, names in (
        ((AF_INET, 1, 132), ["net-pf-2-proto-132-type-1", "net-pf-2-proto-132"]),
        ((AF_INET, 3, 0), ["net-pf-2-proto-0-type-3", "net-pf-2-proto-0"]),
        ((AF_INET, 5, 0), ["net-pf-2-proto-0-type-5", "net-pf-2-proto-0"]),
        ((AF_INET, SOCK_PACKET, 0), ["net-pf-17"]),
        ((38, 5, 0), ["net-pf-38"]),
        ((46, 1, 0), []),
        ((AF_INET, 11, 0), []),
        ((AF_INET, 1, 263), []),
        ((AF_INET, 1, 6), []),
    ):
        ours.socket(triple)
        assert ours.asked == names, triple
        ours.asked.clear()


def test_a_family_that_is_a_plug_in() -> None:
    """Loaded at the first socket of it, and its `create` decides from then on."""
    ours = Ours(capable=True)
    created: list[Triple] = []

    def create(net: SocketNet, sock: Socket, protocol: int, kern: bool) -> None:
        created.append((38, sock.type, protocol))
        raise SysCallError(errno.EPROTOTYPE)

    def modprobe(name: str) -> bool:
        ours.asked.append(name)
        sock_register(ours.net, NetProtoFamily(38, create))
        return True

    ours.net.modprobe = modprobe
    for type in (5, 1):
        assert ours.socket((38, type, 7)) == errno.EPROTOTYPE
    assert created == [(38, 5, 7), (38, 1, 7)]
    assert ours.asked == ["net-pf-38"]
    assert not ours.net.limits.sockets_in_use
    sock_unregister(ours.net, 38)
    ours.net.modprobe = None
    assert ours.socket((38, 5, 0)) == errno.EAFNOSUPPORT


def test_a_plug_in_that_fails_is_a_warning() -> None:
    ours = Ours(capable=True)

    def modprobe(name: str) -> bool:
        raise ImportError(f"no {name}")

    ours.net.modprobe = modprobe
    ours.net.log_events.clear()
    assert ours.socket((38, 5, 0)) == errno.EAFNOSUPPORT
    assert ours.socket((AF_INET, 1, 132)) == errno.EPROTONOSUPPORT
    warned = [details["text"] for level, _, details, _ in ours.net.log_events if level == "warning"]
    assert warned == [
        f"no {name}" for name in ("net-pf-38", "net-pf-2-proto-132-type-1", "net-pf-2-proto-132")
    ]


def test_the_obsolete_packet_socket_is_warned_of_once() -> None:
    ours = Ours(capable=True)
    ours.net.log_events.clear()
    for _ in range(3):
        assert ours.socket((AF_INET, SOCK_PACKET, 0)) == errno.EAFNOSUPPORT
    warned = [details for level, _, details, _ in ours.net.log_events if level == "warning"]
    assert [w["text"] for w in warned] == ["uses obsolete (PF_INET,SOCK_PACKET)"]


def test_enfile_and_enobufs() -> None:
    """The limits that a Linux cannot be brought to for a test."""
    ours = Ours(capable=True)
    assert not ours.call("socket", AF_INET, 1, 0)[0]
    ours.net.sysctl.set("fs.file-max", 1)
    assert ours.socket((AF_INET, 1, 0)) == errno.ENFILE
    assert ours.socket((46, 1, 0)) == errno.EAFNOSUPPORT
    assert ours.socket((AF_INET, 11, 0)) == errno.EINVAL
    ours.net.sysctl.set("fs.file-max", 100)
    ours.net.limits.socks = 1
    assert ours.socket((AF_INET, 1, 0)) == errno.ENOBUFS
    assert ours.socket((AF_INET, 1, 17)) == errno.EPROTONOSUPPORT
    assert ours.net.limits.sockets_in_use == len(ours.net.socks) == 1
    ours.net.limits.socks = 2
    assert ours.socket((AF_INET, 1, 0)) == 0


def test_flags_are_kept() -> None:
    ours = Ours(capable=True)
    for flags, fl, fd_flags in ((0, 2, 0), (0o4000, 0o4002, 0), (0o2000000, 2, 1)):
        err, fd = ours.call("socket", AF_INET, 1 | flags, 0)
        assert not err
        assert ours.call("fcntl", fd, 3, 0) == (0, fl)
        assert ours.call("fcntl", fd, 1, 0) == (0, fd_flags)
        assert not ours.call("fcntl", fd, 2, 1 - fd_flags)[0]
        assert ours.call("fcntl", fd, 1, 0) == (0, 1 - fd_flags)
        assert not ours.call("close", fd)[0]
        err, again = ours.call("socket", AF_INET, 1, 0)
        assert (err, again) == (0, fd)
        assert ours.call("fcntl", fd, 1, 0) == (0, 0)  # the number's earlier life is forgotten
        ours.call("close", fd)


def test_differences_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "socket-layer.md").read_text()
    missing = {name for name in (*FAMILIES.values(), *PROTOCOLS.values()) if name not in text}
    assert not missing
