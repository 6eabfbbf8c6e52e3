# SPDX-License-Identifier: MIT
"""A transport of datagrams, but for its protocol: sockets, ports, options, buffers and errors as
UDP has them, for transports that are plug-ins.

    socket --TransportProto--> this --Ip.ip_send_skb--> ip
    ip --NetProtocol--> the plug-in's handler -> sock_queue_rcv_skb --sk_data_ready--> socket

A plug-in brings its protocol as three functions. `sendmsg` builds a datagram, `handler` takes a
packet, and `err_handler` finds the socket of an ICMP error. The plug-in gives them to
`serve_dgram`, which can also replace any other entry, and its process is a `DgramCore`.
`examples/note` needs nothing else; `examples/rdm` has its own sending, with all that follows from
it.

Unlike udp, the transport keeps no routes: ip finds one for each datagram. A port belongs to one
socket.
"""

from collections.abc import Callable, Mapping
from errno import (
    EADDRINUSE,
    EADDRNOTAVAIL,
    EBADF,
    EDESTADDRREQ,
    EINVAL,
    EMSGSIZE,
    ENOPROTOOPT,
    EPIPE,
)
from typing import Any, Final

from skbus.core import uapi
from skbus.core.abi import (
    Close,
    Connect,
    Connected,
    DataReadyCb,
    Disconnect,
    DstMtu,
    ErrHandler,
    GetPort,
    Getsockopt,
    InitSock,
    LocalAddr,
    McRet,
    ProtoUnregister,
    RcvCb,
    Recvmsg,
    RouteRet,
    RtCacheFlush,
    Setsockopt,
    Shutdown,
    UdpSendmsgCb,
    XmitCb,
)
from skbus.core.entry import AnyEntry, Handler, Served, entries_of, serve
from skbus.core.initcall import InitStep, do_initcalls, unwind
from skbus.core.interfaces import InetTransport, Ip, NetProtocol, SkCallbacks, TransportProto
from skbus.core.skbuff import SkBuff
from skbus.core.uapi import SEND_SHUTDOWN, SOL_IP, SOL_SOCKET
from skbus.inet.headers.ipv4 import IP_HLEN, ipv4_is_multicast
from skbus.inet.ip_sockglue import (
    do_ip_getsockopt,
    do_ip_setsockopt,
    icmp_error,
    int_value,
    ip_multicast_if,
)
from skbus.inet.mcast import IP_MULTICAST_IF, MEMBERSHIP, MSFILTERS
from skbus.inet.transport import (
    INADDR_ANY,
    SKB_TRUESIZE,
    InetProto,
    TransportNet,
    TransportSock,
    ifindex,
    inet_add_protocol,
    inet_add_protocol_ret,
    inet_del_protocol,
    inetdev_event,
    ip_mc_answer,
    ip_mc_drop_socket,
    ip_mc_getsockopt,
    ip_mc_restore,
    ip_mc_setsockopt,
    sk_icmp_error,
    sk_ret,
    sock_bindtodevice,
    sock_setsockopt,
)

DATAGRAM_MAX: Final = 0xFFFF - IP_HLEN
"""Bytes in one IPv4 packet without options, with the transport's own header."""


class DgramNet(TransportNet):
    """`struct net` of such a transport. counters: the names of its counters."""

    def __init__(self, name: str, *, counters: tuple[str, ...] = (), **arguments: Any) -> None:
        super().__init__(name, **arguments)
        self.socks: dict[int, TransportSock] = {}
        """By number."""
        self.ports: dict[int, TransportSock] = {}
        """By local port."""
        self.counters = dict.fromkeys(counters, 0)


# ---- sockets -----------------------------------------------------------------------------


def init_sock(net: DgramNet, item: InitSock) -> None:
    """A socket begins; again, where this process or the socket layer has been restarted."""
    rcvbuf = net.sysctl["net.core.rmem_default"]
    net.socks[item.sk] = TransportSock(item.sk, rcvbuf, item.protocol)


def find_port(net: DgramNet) -> int:
    """An unused port, 0 where there is none (RFC 6056 3.3.1)."""
    low, high = net.sysctl["net.ipv4.ip_local_port_range"]
    count = max(high - low + 1, 0)
    start = net.rand.randrange(count) if count else 0
    for i in range(count):
        port: int = low + (start + i) % count
        if port not in net.ports:
            return port
    return 0


def get_port(net: DgramNet, item: GetPort) -> None:
    """bind(2), and the port of a socket that sends without one. Without `req` the socket was bound
    before: its address is not checked, as ip may not have told of it yet."""
    sk = net.socks.get(item.sk)
    err = 0
    port = item.port
    if sk is None or sk.inet_num or len(item.addr) != 4 or not 0 <= port <= 0xFFFF:
        err = EBADF if sk is None else EINVAL
    elif item.req and item.addr != INADDR_ANY and item.addr not in net.addrs:
        err = EADDRNOTAVAIL
    else:
        port = port or find_port(net)
        err = EADDRINUSE if not port or port in net.ports else 0
    if err or sk is None:
        sk_ret(net, item.sk, item.req, err)
        return
    sk.inet_saddr = sk.inet_rcv_saddr = item.addr
    sk.inet_num = port
    net.ports[port] = sk
    sk_ret(net, item.sk, item.req, 0, LocalAddr(item.addr, port))


def connect(net: DgramNet, item: Connect) -> None:
    """Set the peer: datagrams without an address go to it, and only its datagrams are received."""
    sk = net.socks.get(item.sk)
    if sk is None or len(item.addr) != 4 or not 0 < item.port <= 0xFFFF:
        sk_ret(net, item.sk, item.req, EBADF if sk is None else EINVAL)
        return
    sk.inet_daddr, sk.inet_dport = item.addr, item.port
    sk_ret(net, item.sk, item.req, 0, Connected(sk.inet_saddr, sk.inet_num))


def disconnect(net: DgramNet, item: Disconnect) -> None:
    """No peer any more."""
    sk = net.socks.get(item.sk)
    if sk is not None:
        sk.inet_daddr, sk.inet_dport = INADDR_ANY, 0
    sk_ret(net, item.sk, item.req, 0 if sk is not None else EBADF)


def shutdown(net: DgramNet, item: Shutdown) -> None:
    """shutdown(2): only sending is the transport's to refuse."""
    sk = net.socks.get(item.sk)
    if sk is not None:
        sk.sk_shutdown |= item.how & uapi.SHUTDOWN_MASK


def close(net: DgramNet, item: Close) -> None:
    """close(2)"""
    sk = net.socks.pop(item.sk, None)
    if sk is not None:
        ip_mc_drop_socket(net, sk)
        if net.ports.get(sk.inet_num) is sk:
            del net.ports[sk.inet_num]


# ---- options -----------------------------------------------------------------------------


def setsockopt(net: DgramNet, item: Setsockopt) -> None:
    """setsockopt(2) of levels SOCKET and IP."""
    sk = net.socks.get(item.sk)
    if sk is None:
        err = EBADF
    elif item.level == SOL_IP and item.optname in MEMBERSHIP:
        ip_mc_setsockopt(net, item)
        return
    elif item.level == SOL_IP:
        err = _set_ip(net, sk, item.optname, item.value)
    elif item.level != SOL_SOCKET:
        err = ENOPROTOOPT
    elif item.optname == uapi.SO_BINDTODEVICE:
        err = sock_bindtodevice(net, sk, item.value)
    else:
        err = 0
        sock_setsockopt(net, sk, item.optname, int_value(item.value))
    sk_ret(net, item.sk, item.req, err)


def _set_ip(net: DgramNet, sk: TransportSock, optname: int, value: bytes) -> int:
    if optname == IP_MULTICAST_IF:
        found = ip_multicast_if(value, sk.sk_bound_dev_if, lambda a, i: ifindex(net, a, i))
        if isinstance(found, int):
            return found
        sk.mc_index, sk.mc_addr = found
        return 0
    option = do_ip_setsockopt(uapi.SOCK_DGRAM, optname, value, lambda a, i: ifindex(net, a, i))
    if isinstance(option, int):
        return option
    setattr(sk, *option)
    return 0


def getsockopt(net: DgramNet, item: Getsockopt) -> None:
    """getsockopt(2) of level IP."""
    sk = net.socks.get(item.sk)
    found: bytes | int
    if sk is None:
        found = EBADF
    elif item.level != SOL_IP:
        found = ENOPROTOOPT
    elif item.optname in MSFILTERS:
        ip_mc_getsockopt(net, sk, item)
        return
    else:
        ttl: int = net.ipv4.sysctl_ip_default_ttl
        found = do_ip_getsockopt(sk, item.optname, item.optlen, ttl)
    if isinstance(found, int):
        sk_ret(net, item.sk, item.req, found)
    else:
        sk_ret(net, item.sk, item.req, 0, found)


def ip_mc_ret(net: DgramNet, item: McRet) -> None:
    """ip's answer to a membership option."""
    ip_mc_answer(net, item, net.socks.get(item.sk))


# ---- sending -----------------------------------------------------------------------------


def sk_destination(
    net: DgramNet, skb: SkBuff, hlen: int
) -> tuple[TransportSock, UdpSendmsgCb, bytes, int] | None:
    """(socket, cb, address, port) of an application's datagram. None where it cannot be sent: it
    has been dropped, and the application told. hlen: of the header that will be in front."""
    cb = skb.cb
    assert isinstance(cb, UdpSendmsgCb)
    sk = net.socks.get(cb.sk)
    daddr, dport = cb.addr, cb.port
    err = 0
    if sk is None or not sk.inet_num:
        err = EBADF
    elif sk.sk_shutdown & SEND_SHUTDOWN:
        err = EPIPE
    elif skb.len + hlen > DATAGRAM_MAX:
        err = EMSGSIZE
    elif not daddr:
        daddr, dport = sk.inet_daddr, sk.inet_dport
        err = EDESTADDRREQ if daddr == INADDR_ANY else 0
    elif len(daddr) != 4 or not 0 < dport <= 0xFFFF:
        err = EINVAL
    if err or sk is None:
        sk_refuse(net, skb, cb, err)
        return None
    return sk, cb, daddr, dport


def sk_refuse(net: DgramNet, skb: SkBuff, cb: UdpSendmsgCb, err: int) -> None:
    """A datagram that cannot be sent: the application hears why."""
    net.kfree_skb(skb, "NOT_SPECIFIED", err=err)
    sk_ret(net, cb.sk, cb.req, err)


def xmit_cb(sk: TransportSock, cb: UdpSendmsgCb, daddr: bytes, protocol: int) -> XmitCb:
    """Values for the IP header of a datagram: from the options of its socket, and of this call."""
    multicast = ipv4_is_multicast(daddr)
    oif = cb.oif or sk.sk_bound_dev_if or (sk.mc_index if multicast else sk.uc_index)
    saddr = cb.saddr or sk.inet_saddr
    if saddr == INADDR_ANY and multicast:
        saddr = sk.mc_addr
    ttl = cb.ttl or ((sk.mc_ttl or -1) if multicast else max(sk.uc_ttl, 0))
    return XmitCb(
        b"" if saddr == INADDR_ANY else saddr,
        daddr,
        protocol,
        cb.tos if cb.tos >= 0 else sk.tos,
        ttl,
        sk.pmtudisc in (uapi.IP_PMTUDISC_WANT, uapi.IP_PMTUDISC_DO, uapi.IP_PMTUDISC_PROBE),
        oif,
        cb.options or sk.inet_opt,
        sk.mc_loop,
        pmtudisc=sk.pmtudisc,
    )


def ip_send_datagram(
    net: DgramNet, sk: TransportSock, skb: SkBuff, cb: UdpSendmsgCb, header: bytes, to: XmitCb
) -> None:
    """Put the header in front, hand the datagram to ip, and tell the application that it is sent.
    The payload's slots go with the skb. ip finds the route, and drops the datagram where there is
    none (IpOutNoRoutes)."""
    skb.push(header)
    skb.transport_header = 0
    skb.network_header = skb.mac_header = -1
    net.call_skb("ip", Ip.ip_send_skb, skb, to)
    sk_ret(net, sk.sk, cb.req, 0)


# ---- receiving ---------------------------------------------------------------------------


def lookup(
    net: DgramNet, saddr: bytes, sport: int, daddr: bytes, dport: int
) -> TransportSock | None:
    """The socket of a datagram's port, unless bound elsewhere or connected to another peer."""
    sk = net.ports.get(dport)
    if sk is None or sk.inet_rcv_saddr not in (INADDR_ANY, daddr):
        return None
    if sk.connected() and (sk.inet_daddr, sk.inet_dport) != (saddr, sport):
        return None
    return sk


def sock_queue_rcv_skb(
    net: DgramNet, sk: TransportSock, skb: SkBuff, cb: RcvCb, sport: int
) -> bool:
    """Hand a datagram, with `data` at its payload, to the socket. False where the receive buffer
    has no room, and the skb was dropped."""
    size = skb.len + SKB_TRUESIZE
    if sk.sk_rmem_alloc and sk.sk_rmem_alloc + size > sk.sk_rcvbuf:
        sk.sk_drops += 1
        net.kfree_skb(skb, "SOCKET_RCVBUFF", sk=sk.sk)
        return False
    sk.sk_rmem_alloc += size
    ready = DataReadyCb(sk.sk, cb.saddr, sport, cb.daddr, sk.inet_num, skb.skb_iif, 0, sk.sk_drops)
    net.call_skb("socket", SkCallbacks.sk_data_ready, skb, ready)
    return True


def recvmsg(net: DgramNet, item: Recvmsg) -> None:
    """The application took datagrams of `copied` bytes together (`sock_rfree`)."""
    sk = net.socks.get(item.sk)
    if sk is not None:
        taken = item.copied + item.datagrams * SKB_TRUESIZE
        sk.sk_rmem_alloc = max(0, sk.sk_rmem_alloc - taken)


def icmp_report(
    net: DgramNet, sk: TransportSock, item: ErrHandler, dport: int, payload: bytes
) -> None:
    """An ICMP error about a datagram of sk to dport, of which `payload` is quoted."""
    sk_icmp_error(
        net,
        sk,
        icmp_error(item.type, item.code, sk.pmtudisc),
        (item.type, item.code, item.info),
        item.offender,
        (item.daddr, dport),
        payload,
    )


# ---- messages of ip that are of no use here -----------------------------------------------


def ip_route_output_ret(net: DgramNet, item: RouteRet) -> None:
    """Nothing was asked."""


def rt_cache_flush(net: DgramNet, item: RtCacheFlush) -> None:
    """No route is kept."""


def dst_mtu(net: DgramNet, item: DstMtu) -> None:
    """No MTU is kept: ip fragments long datagrams."""


# ---- the process -------------------------------------------------------------------------

_DEFAULT: Final = (
    InetTransport.inet_add_protocol_ret.by(inet_add_protocol_ret),
    InetTransport.ip_route_output_ret.by(ip_route_output_ret),
    InetTransport.rt_cache_flush.by(rt_cache_flush),
    InetTransport.dst_mtu.by(dst_mtu),
    InetTransport.inetdev_event.by(inetdev_event),
    InetTransport.ip_mc_ret.by(ip_mc_ret),
    TransportProto.init.by(init_sock),
    TransportProto.bind.by(get_port),
    TransportProto.connect.by(connect),
    TransportProto.disconnect.by(disconnect),
    TransportProto.recvmsg.by(recvmsg),
    TransportProto.shutdown.by(shutdown),
    TransportProto.close.by(close),
    TransportProto.setsockopt.by(setsockopt),
    TransportProto.getsockopt.by(getsockopt),
)


def serve_dgram(
    handler: Callable[[Any, SkBuff], None],
    err_handler: Callable[[Any, ErrHandler], None],
    sendmsg: Callable[[Any, SkBuff], None],
    *own: Served,
) -> dict[AnyEntry, Handler]:
    """The entries that such a transport's process serves. own: those with functions of its own."""
    table = {one.entry: one for one in _DEFAULT}
    table.update({one.entry: one for one in (TransportProto.sendmsg.by(sendmsg), *own)})
    of_ip = entries_of(InetTransport)
    return {
        **serve(
            NetProtocol,
            NetProtocol.handler.by(handler),
            NetProtocol.err_handler.by(err_handler),
        ),
        **serve(InetTransport, *[one for entry, one in table.items() if entry in of_ip]),
        **serve(
            TransportProto,
            *[one for entry, one in table.items() if entry not in of_ip],
            without=(TransportProto.listen, TransportProto.accept),
        ),
    }


class DgramCore:
    """`skbus.core.net.Core` of such a transport."""

    entries: Mapping[AnyEntry, Handler]

    def __init__(self, net: DgramNet, serves: Mapping[AnyEntry, Handler], protocol: int) -> None:
        self.net = net
        self.entries = serves
        self.proto = InetProto(protocol, NetProtocol.handler, NetProtocol.err_handler)
        self._steps = (
            InitStep(
                "proto",
                lambda net: None,
                lambda net: net.call(
                    "socket", SkCallbacks.proto_unregister, ProtoUnregister(net.name)
                ),
            ),
            InitStep(
                "inet_add_protocol",
                lambda net: inet_add_protocol(net, self.proto),
                lambda net: inet_del_protocol(net, self.proto),
            ),
        )

    def start(self) -> None:
        """Register with ip. (The socket layer loads its part when a socket is asked for.)"""
        do_initcalls(self.net, f"{self.net.name}_init", self._steps)

    def exit(self) -> None:
        """The plug-in is pulled out: tell ip and the socket layer not to wait for it any more."""
        unwind(self.net, f"{self.net.name}_init", self._steps)

    def peer_up(self, process: str) -> None:
        """ip has forgotten us, or the socket layer its sockets."""
        net = self.net
        if process == "ip":
            inet_add_protocol(net, self.proto)
            ip_mc_restore(net, list(net.socks.values()))
        elif process == "socket":
            for sk in net.socks.values():
                ip_mc_drop_socket(net, sk)
            net.socks.clear()
            net.ports.clear()

    def idle(self) -> None:
        """Nothing is put off to the end of a batch."""

    def held(self) -> int:
        """No skb is kept."""
        return 0

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """The socket layer is above, ip below."""
        return ["socket"], ["ip"]

    def status(self) -> dict[str, object]:
        """For `skbus status`."""
        return {"ports": sorted(self.net.ports), **self.net.counters}

    def proc(self, name: str) -> object:
        """No part in Linux's files of /proc/net."""
        return None
