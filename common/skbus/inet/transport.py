# SPDX-License-Identifier: MIT
"""The common part of all transports, whatever their protocol.

    with ip             registration (`inet_add_protocol`), addresses, multicast groups
    with the socket     answers (`sk_ret`), SOL_SOCKET options, the receive buffer, ICMP errors

tcp, udp, ip (for its raw and ping sockets) and plug-ins use the parts that they need.
`TransportSock` is a datagram transport's state of a socket, `TransportNet` that of the process. A
plug-in that needs nothing special has the rest in `skbus.inet.dgram`.
"""

import errno
from errno import EADDRNOTAVAIL, ENETDOWN, ENODEV
from random import Random
from typing import Final, NamedTuple

from skbus.core import uapi
from skbus.core.abi import (
    ErrHandler,
    Getsockopt,
    InetAddProtocol,
    InetDelProtocol,
    InetdevEvent,
    InetProtocolRet,
    McDropSocket,
    McRet,
    McSetsockopt,
    RcvCb,
    Setsockopt,
    SkErrorReport,
    SkRet,
)
from skbus.core.compiled import mypyc_attr
from skbus.core.entry import Entry, SkbEntry
from skbus.core.interfaces import Ip, SkCallbacks
from skbus.core.net import Net
from skbus.core.pool import Allocator, Pool
from skbus.core.sysctl import Sysctl
from skbus.inet.ip_sockglue import InetOptions, ip_icmp_error
from skbus.inet.mcast import McList, MreqError, decode_mc_list, msfilter_get, restore_options

INADDR_ANY: Final = b"\0\0\0\0"
SKB_TRUESIZE: Final = 256
"""Charged to a socket's buffer for each datagram, even an empty one, as by the socket layer."""

# include/net/sock.h: sk_userlocks
SOCK_BINDADDR_LOCK: Final = 4
"""bind(2) has chosen the address."""
SOCK_BINDPORT_LOCK: Final = 8
"""bind(2) has chosen the port."""

SK_REUSEADDR: Final = 1
SK_REUSEPORT: Final = 2
"""Bits of `TransportSock.reuse` and `GetPort.reuse`."""


# ---- types -------------------------------------------------------------------------------


@mypyc_attr(allow_interpreted_subclasses=True)
class TransportSock(InetOptions):
    """`struct inet_sock` of a transport of datagrams: plain values, which can be written down."""

    __slots__ = (
        "broadcast", "inet_daddr", "inet_dport", "inet_num", "inet_rcv_saddr", "inet_saddr",
        "mc_list", "protocol", "reuse", "sk", "sk_bound_dev_if", "sk_drops", "sk_rcvbuf",
        "sk_rmem_alloc", "sk_shutdown", "sk_userlocks",
    )  # fmt: skip

    def __init__(self, sk: int, rcvbuf: int, protocol: int) -> None:
        super().__init__()
        self.sk = sk
        """Its number."""
        self.protocol = protocol
        self.inet_saddr = INADDR_ANY
        """The address to send from."""
        self.inet_rcv_saddr = INADDR_ANY
        """The address to receive for."""
        self.inet_num = 0
        """The local port; 0 while the socket has none."""
        self.inet_daddr = INADDR_ANY
        self.inet_dport = 0
        """The peer; the socket is connected where inet_daddr is set."""
        self.sk_bound_dev_if = 0
        self.reuse = 0
        self.sk_userlocks = 0
        self.sk_shutdown = 0
        self.sk_rcvbuf = rcvbuf
        self.sk_rmem_alloc = 0
        """Bytes in the socket's receive queue, in the socket layer."""
        self.sk_drops = 0
        self.broadcast = False
        self.mc_list: McList = ()

    def connected(self) -> bool:
        """`sk_state == TCP_ESTABLISHED`"""
        return self.inet_daddr != INADDR_ANY


class InDevice(NamedTuple):
    """One address of ours, as ip told it."""

    ifindex: int
    dev: str
    prefixlen: int
    broadcast: bytes
    mtu: int


@mypyc_attr(allow_interpreted_subclasses=True)
class TransportNet(Net):
    """`struct net`, with the fields of a transport of datagrams."""

    def __init__(
        self,
        name: str,
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator | None = None,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
    ) -> None:
        # Named one by one: mypyc passes `**arguments` on to a parent's __init__ wrongly.
        super().__init__(name, rand=rand, pool=pool, alloc=alloc, sysctl=sysctl, epoch=epoch)
        self.addrs: dict[bytes, InDevice] = {}
        self.broadcasts: dict[bytes, int] = {}
        """Broadcast address -> ifindex."""
        self.dev_by_name: dict[str, int] = {}
        self.next_req = 0
        """The number of the latest question to ip."""
        self.mc_requests: dict[int, tuple[int, int]] = {}
        """Question to ip -> (socket, request of the socket layer)."""
        self.refused = 0
        """The errno by which ip refused our protocol, 0 where it did not."""


# ---- the protocol ------------------------------------------------------------------------


class InetProto(NamedTuple):
    """`struct net_protocol`: which entries of ours take packets of a protocol, and errors."""

    protocol: int
    handler: SkbEntry[RcvCb]
    err_handler: Entry[ErrHandler]


def inet_add_protocol(net: Net, proto: InetProto) -> None:
    """Have ip register the protocol: at start, and again when ip has been restarted. ip then tells
    all addresses (`inetdev_event`); a refusal comes by `inet_add_protocol_ret`."""
    item = InetAddProtocol(proto.protocol, net.name, proto.handler.name, proto.err_handler.name)
    net.call("ip", Ip.inet_add_protocol, item)


def inet_del_protocol(net: Net, proto: InetProto) -> None:
    """`inet_del_protocol`: from now on ip answers packets of the protocol with ICMP."""
    net.call("ip", Ip.inet_del_protocol, InetDelProtocol(proto.protocol, net.name))


def inet_add_protocol_ret(net: Net, item: InetProtocolRet) -> None:
    """ip has refused: another process has the protocol. The refusal is only reported. When ip is
    restarted, the first process that asks gets the protocol."""
    if isinstance(net, TransportNet):
        net.refused = item.err
    net.warning("inet_add_protocol", protocol=item.protocol, err=errno.errorcode.get(item.err))


# ---- addresses ---------------------------------------------------------------------------


def inetdev_event(net: TransportNet, item: InetdevEvent) -> None:
    """An address of ours came or went."""
    if net.tracing:
        net.trace("inetdev_event", dev=item.dev, addr=item.addr, up=item.up)
    if len(item.addr) != 4:
        return  # IPv6 has no socket here yet
    if item.up:
        net.addrs[item.addr] = InDevice(
            item.ifindex, item.dev, item.prefixlen, item.broadcast, item.mtu
        )
        net.dev_by_name[item.dev] = item.ifindex
    else:
        net.addrs.pop(item.addr, None)
    net.broadcasts = {d.broadcast: d.ifindex for d in net.addrs.values() if d.broadcast}


def ifindex(net: TransportNet, addr: bytes, index: int) -> int:
    """`skbus.inet.ip_sockglue.IfIndex`, as far as ip has told of its devices."""
    if addr:
        dev = net.addrs.get(addr)
        return dev.ifindex if dev is not None else 0
    return index if index in net.dev_by_name.values() else 0


# ---- answers and errors ------------------------------------------------------------------


def sk_ret(net: Net, sk: int, req: int, err: int, val: object = None) -> None:
    """Answer request `req` of the socket layer. req 0 wants no answer, and gets none."""
    if req:
        net.call("socket", SkCallbacks.sk_ret, SkRet(sk, req, err, val))


def sk_error_report(net: Net, sk: int, err: int) -> None:
    """`sk->sk_error_report`: the socket has an error, which the next call returns."""
    net.call("socket", SkCallbacks.sk_error_report, SkErrorReport(sk, err, False))


def sk_icmp_error(
    net: Net,
    sk: TransportSock,
    error: tuple[int, bool],
    icmp: tuple[int, int, int],
    offender: bytes,
    to: tuple[bytes, int],
    payload: bytes,
) -> None:
    """An ICMP error about a datagram of sk (RFC 1122 4.1.3.3). A hard error reaches a connected
    socket. Any error reaches a socket with IP_RECVERR, in full.

    error: as `icmp_error` gives it. icmp: (type, code, info). to, payload: of the datagram.
    """
    err, hard = error
    if sk.recverr:
        ip_icmp_error(net, sk.sk, err, icmp, offender, to, payload)
    elif not (hard and sk.connected()):
        return
    sk_error_report(net, sk.sk, err)


# ---- options -----------------------------------------------------------------------------


def bind_device_name(value: bytes) -> str:
    """SO_BINDTODEVICE: the name, "" for no device."""
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


def sock_setsockopt(net: Net, sk: TransportSock, optname: int, number: int) -> None:
    """The part of SOL_SOCKET that a transport of datagrams needs, but for SO_BINDTODEVICE. The
    socket layer has checked the value; other options are passed over."""
    if optname == uapi.SO_BROADCAST:
        sk.broadcast = bool(number)
    elif optname == uapi.SO_REUSEADDR:
        sk.reuse = sk.reuse & ~SK_REUSEADDR | (SK_REUSEADDR if number else 0)
    elif optname == uapi.SO_REUSEPORT:
        sk.reuse = sk.reuse & ~SK_REUSEPORT | (SK_REUSEPORT if number else 0)
    elif optname == uapi.SO_RCVBUFFORCE:
        sk.sk_rcvbuf = max(2 * max(number, 0), uapi.SOCK_MIN_RCVBUF)
    elif optname == uapi.SO_RCVBUF:
        size = min(number & 0xFFFFFFFF, net.sysctl["net.core.rmem_max"])
        sk.sk_rcvbuf = max(2 * size, uapi.SOCK_MIN_RCVBUF)


def sock_bindtodevice(net: TransportNet, sk: TransportSock, value: bytes) -> int:
    """SO_BINDTODEVICE: an errno, 0 for success."""
    name = bind_device_name(value)
    if name and name not in net.dev_by_name:
        return ENODEV
    sk.sk_bound_dev_if = net.dev_by_name[name] if name else 0
    return 0


# ---- multicast groups --------------------------------------------------------------------
# ip decides, as devices are shared, and tells which groups a socket is in (`skbusd.ip.mcast`).


def ip_mc_setsockopt(net: TransportNet, item: Setsockopt) -> None:
    """A membership option: ask ip. RFC 3376 2, RFC 3678."""
    net.next_req += 1
    net.mc_requests[net.next_req] = (item.sk, item.req)
    request = McSetsockopt(net.name, item.sk, net.next_req, item.optname, item.value)
    net.call("ip", Ip.ip_mc_setsockopt, request)


def ip_mc_answer(net: TransportNet, item: McRet, sk: TransportSock | None) -> None:
    """ip's answer: the groups that the socket is in, even where the option failed. sk: the socket
    `item.sk`, None where it has been closed meanwhile."""
    request = net.mc_requests.pop(item.req, None)
    if net.tracing:
        net.trace("ip_mc_ret", sk=item.sk, err=item.err)
    if request is None:
        return
    number, req = request
    mc_list = decode_mc_list(item.mc_list)
    if sk is None:
        # ip had not heard of the group when the socket was closed.
        net.call("ip", Ip.ip_mc_drop_socket, McDropSocket(net.name, number))
    else:
        sk.mc_list = mc_list
    sk_ret(net, number, req, item.err, mc_list)


def ip_mc_getsockopt(net: TransportNet, sk: TransportSock, item: Getsockopt) -> None:
    """IP_MSFILTER, MCAST_MSFILTER.

    Differs from Linux: shows the socket's first group, as the system call's value is not passed on.
    """
    try:
        value = msfilter_get(sk.mc_list, item.optname, b"", EADDRNOTAVAIL)
    except MreqError as e:
        sk_ret(net, item.sk, item.req, int(e.args[0]))
        return
    sk_ret(net, item.sk, item.req, 0, value)


def ip_mc_drop_socket(net: TransportNet, sk: TransportSock) -> None:
    """`ip_mc_drop_socket`: the socket is closed, and leaves its groups."""
    if sk.mc_list:
        sk.mc_list = ()
        net.call("ip", Ip.ip_mc_drop_socket, McDropSocket(net.name, sk.sk))


def ip_mc_restore(net: TransportNet, socks: "list[TransportSock]") -> None:
    """ip has been started anew: tell it of the groups of all sockets. Requests to the ip before
    fail, as no answer will come."""
    requests, net.mc_requests = net.mc_requests, {}
    for number, req in requests.values():
        sk_ret(net, number, req, ENETDOWN, None)
    for sk in socks:
        for optname, value in restore_options(sk.mc_list):
            item = McSetsockopt(net.name, sk.sk, 0, optname, value)
            net.call("ip", Ip.ip_mc_setsockopt, item)
