# SPDX-License-Identifier: MIT
"""struct proto: a plug-in's registration, and what a transport hears that has been restarted."""

import errno
from typing import TYPE_CHECKING, Any

import pytest

from skbus.core.interfaces import TransportProto
from skbus.core.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.af_inet import (
    INET_DGRAM_OPS,
    inet_register_transport,
    inet_unregister_transport,
)
from skbusd.socket.files import Cred
from skbusd.socket.protosw import INET_PROTOSW_PERMANENT, InetProtosw
from skbusd.socket.udp_sock import datagram_prot

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

INET = 2
TOY = 250
PEER = (INET, 7, b"\x0a\x4d\0\x01")
HERE = (INET, 9, b"\x0a\x4d\0\x02")
TOY_PROTOSW = InetProtosw(
    uapi.SOCK_RDM, TOY, datagram_prot("TOY", "toy", owner="toy"), INET_DGRAM_OPS, 0
)


def named(calls: list[tuple[Any, Any]]) -> list[tuple[str, Any]]:
    return [(entry.name, item) for entry, item in calls]


def restarted(stack: "Stack", process: str) -> list[tuple[str, Any]]:
    """What a transport hears that has forgotten everything."""
    stack.core.peer_up(process)
    stack.outbox(process)
    stack.core.peer_up(process)
    return named(stack.outbox(process))


def made(stack: "Stack", type: int, protocol: int) -> tuple[int, int]:
    err, fd, _ = stack.call("socket", INET, type, protocol)
    assert err == 0
    sk = stack.net.clients[stack.client].fdt[fd].sk
    assert sk is not None
    return fd, sk.number


@pytest.mark.parametrize(
    ("type", "protocol", "process", "level", "option"),
    [
        (uapi.SOCK_DGRAM, 0, "udp", uapi.SOL_IP, uapi.IP_TTL),
        (uapi.SOCK_RDM, TOY, "toy", uapi.SOL_SOCKET, uapi.SO_PRIORITY),
    ],
)
def test_a_datagram_socket_is_told_anew(
    stack: "Stack", type: int, protocol: int, process: str, level: int, option: int
) -> None:
    inet_register_transport(stack.net, TOY_PROTOSW)
    fd, sk = made(stack, type, protocol)
    four = (4).to_bytes(4, "little")
    assert stack.call("setsockopt", fd, level, option, four)[0] == 0
    assert stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_REUSEPORT, four)[0] == 0
    assert stack.call("bind", fd, HERE)[0] == 0
    assert stack.call("connect", fd, PEER, -1)[0] == 0
    told = restarted(stack, process)
    assert [name for name, _ in told] == ["init", "setsockopt", "setsockopt", "bind", "connect"]
    init, opt, _, bind, connect = (item for _, item in told)
    assert (init.sk, init.type) == (sk, type)
    assert (opt.level, opt.optname, opt.value) == (level, option, four)
    assert (bind.addr, bind.reuse & 2) == (stack.net.socks[sk].inet_rcv_saddr, 2)
    assert bind.port == stack.net.socks[sk].inet_num
    assert (connect.addr, connect.port) == (PEER[2], PEER[1])
    assert not [item for _, item in told if getattr(item, "req", 0)]


def test_a_listener_is_told_anew_and_a_connection_is_lost(stack: "Stack") -> None:
    fd, sk = made(stack, uapi.SOCK_STREAM, 0)
    assert stack.call("bind", fd, HERE)[0] == 0
    assert stack.call("listen", fd, 17)[0] == 0
    other, connection = stack.connected()
    told = restarted(stack, "tcp")
    of = {number: [n for n, item in told if item.sk == number] for number in (sk, connection)}
    assert of == {sk: ["init", "bind", "listen"], connection: ["init"]}
    assert next(item.backlog for name, item in told if name == "listen") == 17
    assert stack.recv(other, 10)[0] == errno.ECONNRESET


def test_a_raw_socket_is_bound_again_by_its_address_alone(stack: "Stack") -> None:
    client = b"B" * 16
    assert stack.core.client_up(client, Cred(0, (), net_raw=True, uid=0))
    err, fd, _ = stack.call("socket", INET, uapi.SOCK_RAW, 89, client=client)
    assert err == 0
    assert [name for name, _ in restarted(stack, "ip")] == ["init"]
    assert stack.call("bind", fd, HERE, client=client)[0] == 0
    told = restarted(stack, "ip")
    assert [name for name, _ in told] == ["init", "bind"]
    assert (told[1][1].addr, told[1][1].port) == (HERE[2], 0)


def test_a_plug_in_is_registered_whole_or_not_at_all(stack: "Stack") -> None:
    net = stack.net
    inet_register_transport(net, TOY_PROTOSW)
    with pytest.raises(SysCallError) as info:
        inet_register_transport(net, TOY_PROTOSW)
    assert info.value.errno == errno.EEXIST
    assert net.proto_list["TOY"] is TOY_PROTOSW.prot
    inet_unregister_transport(net, TOY_PROTOSW)
    assert "TOY" not in net.proto_list
    assert not net.inetsw[uapi.SOCK_RDM]
    mine = datagram_prot("MINE", "mine")
    udp = InetProtosw(uapi.SOCK_DGRAM, uapi.IPPROTO_UDP, mine, INET_DGRAM_OPS, 0)
    with pytest.raises(SysCallError) as info:
        inet_register_transport(net, udp)
    assert info.value.errno == errno.EPERM
    assert "MINE" not in net.proto_list
    assert INET_PROTOSW_PERMANENT & net.inetsw[uapi.SOCK_DGRAM][0].flags


def test_a_plug_in_gets_a_port_before_its_first_peer(stack: "Stack") -> None:
    inet_register_transport(stack.net, TOY_PROTOSW)
    fd, _ = made(stack, uapi.SOCK_RDM, TOY)
    stack.begin("connect", fd, PEER, -1)
    asked = [entry for entry, _ in stack.outbox("toy")]
    assert asked == [TransportProto.bind, TransportProto.connect]
