# SPDX-License-Identifier: MIT
"""The part of RDM that runs in the socket process: a module (`skbus insmod`), which the socket
layer also loads by itself where "net-pf-2-proto-253-type-4" is an alias or an entry point of it.

It says that `socket(AF_INET, SOCK_RDM, 253)` is RDM, and that RDM is the process "rdm". What an
application asks of a datagram socket is the same for RDM and UDP, so UDP's functions do it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from skbus.core.abi import Close, Connect, Disconnect, GetPort, InitSock
from skbus.core.interfaces import TransportProto
from skbusd.socket import udp_sock
from skbusd.socket.af_inet import INET_DGRAM_OPS
from skbusd.socket.call import Call, sys_return
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import Proto, Result, proto_register, proto_unregister
from skbusd.socket.protosw import InetProtosw, inet_register_protosw, inet_unregister_protosw
from skbusd.socket.request import transport_call
from skbusd.socket.sock import InetSock, purge_receive_queue, sk_free
from skbusd.socket.uapi import INADDR_ANY, SOCK_RDM, TCP_CLOSE, TCP_ESTABLISHED

IPPROTO_RDM: Final = 253
PROCESS: Final = "rdm"


def rdm_init(net: SocketNet, sk: InetSock) -> None:
    """`sk_prot.init`"""
    net.call(
        PROCESS, TransportProto.init, InitSock(sk.number, sk.sk_family, sk.sk_protocol, sk.sk_type)
    )


def rdm_get_port(net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result) -> None:
    """`sk_prot.get_port`"""

    def bound(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            udp_sock.set_local(sk, value)
        then(net, err, value)

    transport_call(
        net, sk, TransportProto.bind, lambda req: GetPort(sk.number, req, addr, port, 0, 0), bound
    )


def rdm_connect(net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result) -> None:
    """`sk_prot.connect`: the peer from now on; nothing is sent."""
    if not sk.inet_num:
        udp_sock.inet_autobind(net, sk)

    def connected(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            sk.inet_daddr, sk.inet_dport = addr, port
            sk.sk_state = TCP_ESTABLISHED
        then(net, err, value)

    transport_call(
        net, sk, TransportProto.connect, lambda req: Connect(sk.number, req, addr, port), connected
    )


def rdm_disconnect(net: SocketNet, sk: InetSock, then: Result | None) -> None:
    """`sk_prot.disconnect`"""
    sk.inet_daddr, sk.inet_dport = INADDR_ANY, 0
    sk.sk_state = TCP_CLOSE
    done = then or (lambda net, err, value: None)
    transport_call(net, sk, TransportProto.disconnect, lambda req: Disconnect(sk.number, req), done)


def rdm_shutdown(net: SocketNet, sk: InetSock, how: int) -> None:
    """`sk_prot.shutdown`: the process has no use for it."""


def rdm_close(net: SocketNet, sk: InetSock, call: Call | None) -> None:
    """`sk_prot.close`"""
    unread = sk.sk_rmem_alloc
    purge_receive_queue(net, sk)
    net.call(PROCESS, TransportProto.close, Close(sk.number, unread, -1))
    sk_free(net, sk)
    if call is not None:
        sys_return(net, call, 0)


def rdm_restart(net: SocketNet, sk: InetSock) -> None:
    """The process has been restarted: it is told of the socket, its port and its peer anew."""
    rdm_init(net, sk)
    if sk.inet_num:
        item = GetPort(sk.number, 0, sk.inet_rcv_saddr, sk.inet_num, 0, 0)
        net.call(PROCESS, TransportProto.bind, item)
    if sk.sk_state == TCP_ESTABLISHED:
        net.call(
            PROCESS, TransportProto.connect, Connect(sk.number, 0, sk.inet_daddr, sk.inet_dport)
        )


RDM_PROT: Final[Proto] = replace(
    udp_sock.UDP_PROT,
    name="RDM",
    process=PROCESS,
    init=rdm_init,
    close=rdm_close,
    get_port=rdm_get_port,
    connect=rdm_connect,
    disconnect=rdm_disconnect,
    shutdown=rdm_shutdown,
    restart=rdm_restart,
    levels=frozenset(),
    owner="rdm_prot",
)

RDM_PROTOSW: Final = InetProtosw(SOCK_RDM, IPPROTO_RDM, RDM_PROT, INET_DGRAM_OPS, 0)


async def init_module(net: SocketNet, params: Mapping[str, str]) -> None:
    """What `insmod` runs. It is whole or not at all."""
    proto_register(net, RDM_PROT)
    try:
        inet_register_protosw(net, RDM_PROTOSW)
    except BaseException:
        proto_unregister(net, RDM_PROT)
        raise


async def cleanup_module(net: SocketNet, data: object) -> None:
    """What `rmmod` runs, when no socket of ours is open any more."""
    inet_unregister_protosw(net, RDM_PROTOSW)
    proto_unregister(net, RDM_PROT)
