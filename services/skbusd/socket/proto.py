# SPDX-License-Identifier: MIT
"""struct proto: a transport's functions for the socket layer (`include/net/sock.h`).

`inet_*` (af_inet.py) calls `sk.sk_prot.connect(...)` and so on, without knowing the protocol; the
functions are in tcp_sock.py, udp_sock.py and raw_sock.py. They all speak to the transport's process
by `TransportProto`, through `ask` and `tell`. The transport's reports come in by core.py, to
`data_ready` and its like.

A restarted transport is told of each sock anew: `sk_intent` finds the application's wishes for a
sock, and `proto_replay` tells them.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from skbus.core.abi import (
    Accept,
    Connect,
    Connected,
    DataReadyCb,
    Disconnect,
    GetPort,
    Getsockopt,
    InitSock,
    ListenStart,
    LocalAddr,
    Setsockopt,
    SkErrorReport,
    SkStateChange,
    SkWriteSpace,
)
from skbus.core.entry import Entry, Request
from skbus.core.interfaces import TransportProto
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import SysCallError
from skbus.inet.mcast import McList, restore_options
from skbusd.socket import uapi
from skbusd.socket.call import Call, RecvCall, SendCall, sys_return
from skbusd.socket.ip_sockglue import answer_cmsg_getsockopt
from skbusd.socket.netns import SocketNet
from skbusd.socket.request import transport_ask, transport_tell
from skbusd.socket.sock import InetSock

PROTO_INUSE_NR: Final = 64
"""The most protocols (include/net/sock.h)."""

Result = Callable[[SocketNet, int, Any], None]
"""Told the outcome: (net, errno, value)."""
Ask = Callable[
    [SocketNet, Any, Request[Any, Any], Callable[[int, int], tuple[Any, ...]], Result], None
]
Tell = Callable[[SocketNet, Any, Entry[Any], Any], None]

S = TypeVar("S", bound=InetSock)


def accept_told(net: SocketNet, sk: InetSock, child: InetSock) -> tuple[str, Accept]:
    """`Proto.accept` of one process: it knows listener and child by their numbers."""
    return child.sk_prot.process, Accept(sk.number, child.number)


def _not_moved(net: SocketNet, sk: InetSock, err: int, value: Any, tries: int) -> bool:
    return False


def _acceptq_changed(net: SocketNet, sk: InetSock) -> None:
    pass


@dataclass(frozen=True, slots=True, eq=False)
class Proto(Generic[S]):
    """`struct proto`. process: where the transport runs. obj: the struct to allocate and pass to
    its functions."""

    name: str
    process: str
    obj: Callable[..., S]
    init: Callable[[SocketNet, S], None]
    close: Callable[[SocketNet, S, Call | None], None]
    """Ends the call, if there is one, when lingering is over."""
    get_port: Callable[[SocketNet, S, bytes, int, Result], None]
    connect: Callable[[SocketNet, S, bytes, int, Result], None]
    disconnect: Callable[[SocketNet, S, Result | None], None]
    sendmsg: Callable[[SocketNet, SendCall, S], None]
    recvmsg: Callable[[SocketNet, RecvCall, S], None]
    shutdown: Callable[[SocketNet, S, int], None]
    setsockopt: Callable[[SocketNet, Call, S, int, int, bytes], None]
    getsockopt: Callable[[SocketNet, Call, S, int, int, int], None]
    poll: Callable[[SocketNet, S], int]
    ioctl: Callable[[SocketNet, S, int], int]
    data_ready: Callable[[SocketNet, S, SkBuff, DataReadyCb], None]
    error_report: Callable[[SocketNet, S, SkErrorReport], None]
    state_change: Callable[[SocketNet, S, SkStateChange], None]
    write_space: Callable[[SocketNet, S, SkWriteSpace], None]
    restart: Callable[[SocketNet, S], None]
    """The transport's process has been restarted, and knows nothing of this sock."""
    levels: frozenset[int] = frozenset()
    """Levels of the transport's own options, where `udp_setsockopt` is used."""
    bind: Callable[[SocketNet, S, bytes, int, Result], None] | None = None
    """bind(2), where it does more than get a port."""
    owner: str = ""
    """The module that it belongs to (THIS_MODULE)"""
    ask: Ask = transport_ask
    """Sends a question to the transport, and brings the answer back."""
    tell: Tell = transport_tell
    """Sends the transport a message that needs no answer."""
    # Functions that differ where a transport is several processes (tcp_shards.py):
    accept: Callable[[SocketNet, S, S], tuple[str, Accept]] = accept_told
    """A child has been accepted: the process to tell, and the message."""
    acceptq_changed: Callable[[SocketNet, S], None] = _acceptq_changed
    child_prot: "Callable[[SocketNet, S, int], Proto[S]] | None" = None
    """The struct proto of a child, by its number; None: it is its listener's."""
    moved: Callable[[SocketNet, S, int, Any, int], bool] = _not_moved
    """The sock could not connect: (errno, answer, number of tries). May it try now at another
    process?"""


# ---- asking any transport -------------------------------------------------------------------


def init_sock(sk: InetSock) -> InitSock:
    """The message that tells a transport of a new sock."""
    return InitSock(sk.number, sk.sk_family, sk.sk_protocol, sk.sk_type)


def sk_reuse_bits(sk: InetSock) -> int:
    """`GetPort.reuse`"""
    return sk.sk_reuse | sk.sk_reuseport << 1


def proto_init(net: SocketNet, sk: InetSock) -> None:
    """`Proto.init` of a transport with nothing more to do here."""
    sk.sk_prot.tell(net, sk, TransportProto.init, init_sock(sk))


def proto_get_port(net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result) -> None:
    """`Proto.get_port`: bind."""
    reuse = sk_reuse_bits(sk)

    def bound(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            set_local(sk, value)
        then(net, err, value)

    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.bind,
        lambda number, req: GetPort(number, req, addr, port, reuse, sk.sk_bound_dev_if),
        bound,
    )


def proto_disconnect(net: SocketNet, sk: InetSock, then: Result | None) -> None:
    """Tell the transport that there is no peer any more, or ask it, where `then` is to hear."""
    if then is None:
        sk.sk_prot.tell(net, sk, TransportProto.disconnect, Disconnect(sk.number, 0))
    else:
        sk.sk_prot.ask(net, sk, TransportProto.disconnect, Disconnect, then)


def proto_getsockopt(
    net: SocketNet, call: Call, sk: InetSock, level: int, optname: int, optlen: int
) -> None:
    """Answer getsockopt(2): here, where the socket layer has the option, else by the transport."""
    if answer_cmsg_getsockopt(net, call, sk, level, optname, optlen):
        return

    def answered(net: SocketNet, err: int, value: Any) -> None:
        sys_return(net, call, err, None if err else value[:optlen])

    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.getsockopt,
        lambda number, req: Getsockopt(number, req, level, optname, optlen),
        answered,
    )


def set_local(sk: InetSock, value: LocalAddr | Connected | None) -> None:
    """Note the sock's local address and port, by its transport's answer."""
    if value is not None:
        sk.inet_saddr = sk.inet_rcv_saddr = value.addr
        sk.inet_sport = sk.inet_num = value.port


# ---- a transport that starts anew -----------------------------------------------------------


class Intent(NamedTuple):
    """The application's wishes for a sock, as far as its transport must know them.

    bound, peer: address and port. backlog: of a listener, else -1.
    """

    options: Mapping[tuple[int, int], bytes]
    groups: McList = ()
    bound: tuple[bytes, int] | None = None
    reuse: int = 0
    peer: tuple[bytes, int] | None = None
    backlog: int = -1


NO_INTENT: Final = Intent({})


def sk_intent(sk: InetSock) -> Intent:
    """The application's wishes for this sock, after the loss of any connection."""
    state = sk.sk_state
    bound = peer = None
    if sk.sk_type == uapi.SOCK_RAW:
        if sk.inet_rcv_saddr != uapi.INADDR_ANY:
            bound = sk.inet_rcv_saddr, 0  # inet_num is the protocol's
    elif sk.inet_num and (state != uapi.TCP_CLOSE or not sk.inet_dport):
        bound = sk.inet_rcv_saddr, sk.inet_num
    if state == uapi.TCP_ESTABLISHED:
        peer = sk.inet_daddr, sk.inet_dport
    backlog = sk.sk_max_ack_backlog if state == uapi.TCP_LISTEN else -1
    return Intent(sk.options, sk.mc_list, bound, sk_reuse_bits(sk), peer, backlog)


def proto_replay(net: SocketNet, sk: InetSock, process: str, number: int, intent: Intent) -> None:
    """Tell a process of a sock, and of all wishes for it. number: the sock's there. Nobody waits
    for answers: for its application the sock is as before."""
    init = InitSock(number, sk.sk_family, sk.sk_protocol, sk.sk_type)
    net.call(process, TransportProto.init, init)
    for (level, optname), optval in intent.options.items():
        option = Setsockopt(number, 0, level, optname, optval)
        net.call(process, TransportProto.setsockopt, option)
    for optname, optval in restore_options(intent.groups):
        option = Setsockopt(number, 0, uapi.SOL_IP, optname, optval)
        net.call(process, TransportProto.setsockopt, option)
    if intent.bound is not None:
        port = GetPort(number, 0, *intent.bound, intent.reuse, sk.sk_bound_dev_if)
        net.call(process, TransportProto.bind, port)
    if intent.peer is not None:
        net.call(process, TransportProto.connect, Connect(number, 0, *intent.peer))
    if intent.backlog >= 0:
        net.call(process, TransportProto.listen, ListenStart(number, 0, intent.backlog))


# ---- registering ----------------------------------------------------------------------------


def proto_register(net: SocketNet, prot: Proto[Any]) -> None:
    """`proto_register`: sockets of that protocol may be made. EEXIST where the name is taken,
    ENOSPC where PROTO_INUSE_NR are registered.

    Differs from Linux, where a taken name goes unnoticed, or fails because its slab does.
    """
    if prot.name in net.proto_list:
        raise SysCallError(errno.EEXIST, f"protocol {prot.name} is registered already")
    if len(net.proto_list) >= PROTO_INUSE_NR:
        raise SysCallError(errno.ENOSPC, f"{PROTO_INUSE_NR} protocols are registered")
    net.proto_list[prot.name] = prot


def proto_unregister(net: SocketNet, prot: Proto[Any]) -> None:
    """`proto_unregister`: take it off the list of protocols."""
    if net.proto_list.get(prot.name) is prot:
        del net.proto_list[prot.name]
