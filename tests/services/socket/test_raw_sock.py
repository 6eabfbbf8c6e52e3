# SPDX-License-Identifier: MIT
"""Raw, ping and UDP-Lite sockets in the socket layer: who may have them, and what ip is told."""

from __future__ import annotations

import struct
from errno import EACCES, EDESTADDRREQ, EMSGSIZE, ENOPROTOOPT, EPERM, EPROTONOSUPPORT
from typing import TYPE_CHECKING, Any

import pytest

from skbus.core import uapi
from skbus.core.syscall import RecvmsgArgs, SendmsgArgs
from skbus.inet.mcast import IP_ADD_MEMBERSHIP

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

from skbus.core.abi import DataReadyCb, Recvmsg, SkErrorReport
from skbus.core.entry import AnyEntry
from skbus.core.interfaces import SkCallbacks, TransportProto
from skbus.core.skbuff import SkBuff
from skbusd.socket.files import Cred

INET = 2
DGRAM = 2
SOCK_RAW = 3
LOCAL = b"\x0a\x4d\0\x02"
PEER = b"\x0a\x4d\0\x01"
ICMP, UDPLITE = 1, 136
ROOT = b"R" * 16
GROUP = b"\xef\1\2\3"


@pytest.fixture
def root(stack: Stack) -> Stack:
    """The application is root's, and in group 100 as well."""
    assert stack.core.client_up(ROOT, Cred(0, (100,), True))
    stack.client = ROOT
    return stack


def create(stack: Stack, type: int, protocol: int) -> tuple[int, int]:
    """(descriptor, number) of a new socket."""
    err, fd, _ = stack.call("socket", INET, type, protocol)
    assert not err
    sk = stack.net.clients[stack.client].fdt[fd].sk
    assert sk is not None
    return fd, sk.number


@pytest.mark.parametrize("protocol", [1, 2, 6, 17, 136, 253, 255])
def test_raw_sockets_need_the_capability(stack: Stack, protocol: int) -> None:
    assert stack.call("socket", INET, SOCK_RAW, protocol)[0] == EPERM
    assert stack.net.socks == {}
    assert stack.core.client_up(ROOT, Cred(1000, (), True))
    assert stack.call("socket", INET, SOCK_RAW, protocol, client=ROOT)[0] == 0


def test_a_raw_socket_of_no_protocol_there_is_not(root: Stack) -> None:
    assert root.call("socket", INET, SOCK_RAW, 0)[0] == EPROTONOSUPPORT


@pytest.mark.parametrize(("low", "high", "err"), [(1, 0, EACCES), (0, 0, 0), (50, 200, 0),
                                                  (101, 200, EACCES)])  # fmt: skip
def test_ping_sockets_are_for_the_groups_in_the_range(
    root: Stack, low: int, high: int, err: int
) -> None:
    root.net.sysctl.set("net.ipv4.ping_group_range", (low, high))
    assert root.call("socket", INET, DGRAM, ICMP)[0] == err
    assert len(root.net.socks) == (0 if err else 1)


def test_a_raw_sockets_name_is_its_protocol(root: Stack) -> None:
    fd, _ = create(root, SOCK_RAW, 253)
    assert root.call("getsockname", fd)[1] == (INET, 253, bytes(4))
    assert root.call("bind", fd, (INET, 99, LOCAL))[0] == 0
    assert root.call("bind", fd, (INET, 0, LOCAL))[0] == 0


def test_packets_pass_whole_in_both_directions(root: Stack) -> None:
    fd, sk = create(root, SOCK_RAW, 253)
    req = root.begin("sendmsg", *SendmsgArgs(fd, addr=(INET, 5, PEER)), data=b"out")
    ((entry, skb),) = root.outbox("ip")
    assert (entry, skb.head, skb.cb[:4]) == (
        TransportProto.sendmsg,
        b"out",
        (sk, skb.cb.req, PEER, 0),
    )
    root.ret(sk, skb.cb.req, 0)
    assert root.replies()[req][:2] == (0, 3)
    incoming = SkBuff(b"E" * 20 + b"in", cb=DataReadyCb(sk, PEER, 0, LOCAL, 0, 2, 0, 0))
    root.deliver(SkCallbacks.sk_data_ready, incoming)
    req = root.begin("recvmsg", *RecvmsgArgs(fd, 100, timeout=0))
    _, (_, address, flags, _), data = root.replies()[req]
    assert (data, address, flags) == (b"E" * 20 + b"in", (INET, 0, PEER), 0)
    assert root.outbox("ip") == [(TransportProto.recvmsg, Recvmsg(sk, 22))]
    root.deliver(SkCallbacks.sk_error_report, SkErrorReport(sk, ENOPROTOOPT, False))
    assert root.recv(fd, 100)[0] == ENOPROTOOPT
    root.check_conserved()


def test_what_cannot_be_sent(root: Stack) -> None:
    fd, _ = create(root, SOCK_RAW, 253)
    assert root.call("sendmsg", *SendmsgArgs(fd), data=b"x")[0] == EDESTADDRREQ
    long = bytes(65536)
    assert root.call("sendmsg", *SendmsgArgs(fd, addr=(INET, 0, PEER)), data=long)[0] == EMSGSIZE


def test_a_ping_socket_gets_its_identifier_before_it_sends(root: Stack) -> None:
    root.net.sysctl.set("net.ipv4.ping_group_range", (0, 0))
    fd, _ = create(root, DGRAM, ICMP)
    root.begin("sendmsg", *SendmsgArgs(fd, addr=(INET, 0, PEER)), data=b"\x08" + bytes(7))
    seen = root.answer_all()
    assert [entry for entry, _ in seen] == [TransportProto.bind, TransportProto.sendmsg]
    assert root.call("getsockname", fd)[1] == (INET, 40000, bytes(4))


def told(stack: Stack) -> list[tuple[AnyEntry, Any]]:
    """What ip hears when it has been started anew."""
    stack.core.peer_up("ip")
    stack.outbox("ip")
    stack.core.peer_up("ip")
    return stack.outbox("ip")


def test_ip_reborn_is_told_of_options_address_groups_and_peer(root: Stack) -> None:
    fd, sk = create(root, SOCK_RAW, 253)
    root.call("bind", fd, (INET, 0, LOCAL))
    root.call("setsockopt", fd, uapi.SOL_IP, uapi.IP_TTL, struct.pack("=i", 9))
    req = root.begin("setsockopt", fd, uapi.SOL_IP, IP_ADD_MEMBERSHIP, GROUP + LOCAL)
    ((entry, item),) = root.outbox("ip")
    assert (entry, item.optname) == (TransportProto.setsockopt, IP_ADD_MEMBERSHIP)
    membership = (GROUP, 2, LOCAL, 0, (PEER,), True)
    root.ret(sk, item.req, 0, (membership,))
    assert root.replies()[req][0] == 0
    root.call("connect", fd, (INET, 7, PEER), -1)
    calls = told(root)
    assert [entry for entry, _ in calls] == [
        TransportProto.init,
        *[TransportProto.setsockopt] * 3,
        TransportProto.bind,
        TransportProto.connect,
    ]
    assert [item.optname for entry, item in calls if entry is TransportProto.setsockopt] == [
        2,
        42,
        48,
    ]
    assert calls[-2][1].addr == LOCAL
    assert calls[-1][1].addr == PEER


def test_udplite_has_options_of_its_level(root: Stack) -> None:
    lite, sk = create(root, DGRAM, UDPLITE)
    plain, _ = create(root, DGRAM, 17)
    assert root.net.socks[sk].sk_protocol == UDPLITE
    value = struct.pack("=i", 8)
    assert root.call("setsockopt", lite, UDPLITE, uapi.UDPLITE_SEND_CSCOV, value)[0] == 0
    assert root.call("setsockopt", plain, UDPLITE, uapi.UDPLITE_SEND_CSCOV, value)[0] == ENOPROTOOPT
