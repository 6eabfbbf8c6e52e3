# SPDX-License-Identifier: MIT
"""The interfaces between the processes of a stack: callers, callees and calls.

One class for each pair of caller and callee; its attributes are the calls (`skbus.core.entry`). A
call has Linux's name of the callee's function that takes it. The exception is `TransportProto`,
which has the names of the function pointers of `struct proto`: every transport serves it by
functions of its own. docs/messages.md is made from this file.
"""

from typing import Final

from skbus.core.abi import (
    Accept,
    BacklogMark,
    Barrier,
    Close,
    Connect,
    Connected,
    DataReadyCb,
    Disconnect,
    DstMtu,
    ErrHandler,
    GetPort,
    Getsockopt,
    Hello,
    IcmpSendCb,
    InetAddProtocol,
    InetDelProtocol,
    InetdevEvent,
    InetProtocolRet,
    InitSock,
    IpRouteOutputKey,
    ListenStart,
    LocalAddr,
    McDropSocket,
    McRet,
    McSetsockopt,
    PacketType,
    ProtoUnregister,
    RcvCb,
    Recvmsg,
    Redirect,
    RegisterNetdevice,
    ReqskQueueAdd,
    RouteRet,
    RtCacheFlush,
    Setsockopt,
    Shutdown,
    SkErrorReport,
    SkRet,
    SkStateChange,
    SkWriteSpace,
    SockErrCb,
    TcpDone,
    TcpFin,
    TcpRcvqAsk,
    TcpSendmsgCb,
    TcpSendmsgFastopenCb,
    UdpSendmsgCb,
    UpdatePmtu,
    XmitCb,
)
from skbus.core.entry import BY_NAME, AnyEntry, Entry, Interface, Request, SkbEntry, SkbRequest

NOTHING: Final = type(None)


class Neighbour(Interface):
    """What every process takes from its neighbours. The shell serves these, not the core."""

    hello = Entry(Hello)
    barrier = Entry(Barrier)


class Netif(Interface):
    """What a driver takes from ip (`struct net_device_ops`, `net/core/dev.c`)."""

    callers = ("ip",)
    callees = ("nic",)

    dev_queue_xmit = SkbEntry(NOTHING)
    """`data` is at the Ethernet header; skb.dev is the ifindex."""
    dev_add_pack = Entry(PacketType)
    dev_remove_pack = Entry(PacketType)


class NetifReceive(Interface):
    """What ip takes from a driver."""

    callers = ("nic",)
    callees = ("ip",)

    register_netdevice = Entry(RegisterNetdevice)
    ip_rcv = SkbEntry(NOTHING)
    """`data` is at the network header, mac_header is set."""
    arp_rcv = SkbEntry(NOTHING)
    """As for `ip_rcv`."""


class SynBacklog(Interface):
    """A mark that nic sends up behind SYNs, and gets back when tcp has taken them. ip passes it on,
    up and down (`nic/synlimit.py`)."""

    callers = ("nic", "ip", "tcp")
    callees = ("ip", "tcp", "nic")

    backlog_mark = Entry(BacklogMark)
    """The mark goes up."""
    backlog_mark_ret = Entry(BacklogMark)
    """The mark comes back."""


class Ip(Interface):
    """What ip takes from transports."""

    callers = ("tcp", "udp", "plug-ins")
    callees = ("ip",)

    inet_add_protocol = Entry(InetAddProtocol)
    inet_del_protocol = Entry(InetDelProtocol)
    ip_queue_xmit = SkbEntry(XmitCb)
    ip_send_skb = SkbEntry(XmitCb)
    icmp_send = SkbEntry(IcmpSendCb)
    ip_route_output_key = Entry(IpRouteOutputKey)
    ipv4_update_pmtu = Entry(UpdatePmtu)
    ipv4_redirect = Entry(Redirect)
    ip_mc_setsockopt = Entry(McSetsockopt)
    ip_mc_drop_socket = Entry(McDropSocket)


class TcpProtocol(Interface):
    """`tcp_protocol`, tcp's `struct net_protocol`."""

    callers = ("ip",)
    callees = ("tcp",)

    tcp_v4_rcv = SkbEntry(RcvCb)
    tcp_v4_err = Entry(ErrHandler)


class UdpProtocol(Interface):
    """`udp_protocol` and `udplite_protocol`, udp's two `struct net_protocol`."""

    callers = ("ip",)
    callees = ("udp",)

    udp_rcv = SkbEntry(RcvCb)
    udp_err = Entry(ErrHandler)
    udplite_rcv = SkbEntry(RcvCb)
    udplite_err = Entry(ErrHandler)


class NetProtocol(Interface):
    """`struct net_protocol` of a transport that is a plug-in."""

    callers = ("ip",)
    callees = ("plug-ins",)

    handler = SkbEntry(RcvCb)
    err_handler = Entry(ErrHandler)


class InetTransport(Interface):
    """What every transport takes from ip besides packets and errors: answers, and news of routes
    and addresses."""

    callers = ("ip",)
    callees = ("tcp", "udp", "plug-ins")

    inet_add_protocol_ret = Entry(InetProtocolRet)
    ip_route_output_ret = Entry(RouteRet)
    rt_cache_flush = Entry(RtCacheFlush)
    dst_mtu = Entry(DstMtu)
    inetdev_event = Entry(InetdevEvent)
    ip_mc_ret = Entry(McRet)


class TransportProto(Interface):
    """`struct proto`: what every transport takes from the socket layer. The transports are tcp,
    udp, ip for its raw and ping sockets, and plug-ins."""

    callers = ("socket",)
    callees = ("tcp", "udp", "ip", "plug-ins")

    init = Entry(InitSock)
    bind = Request(GetPort, LocalAddr)
    listen = Request(ListenStart, LocalAddr)
    accept = Entry(Accept)
    connect = Request(Connect, Connected)
    disconnect = Request(Disconnect, NOTHING)
    sendmsg = SkbRequest(UdpSendmsgCb, NOTHING, lossless=True)
    """A datagram. What a stream sends goes by `Tcp.tcp_sendmsg`."""
    recvmsg = Entry(Recvmsg)
    shutdown = Entry(Shutdown)
    close = Entry(Close)
    setsockopt = Request(Setsockopt, tuple)
    """The answer is the socket's groups from now on, where the option changed them
    (`skbus.inet.mcast`)."""
    getsockopt = Request(Getsockopt, bytes)


class Tcp(Interface):
    """What tcp takes from the socket layer beyond `TransportProto`."""

    callers = ("socket",)
    callees = ("tcp",)

    tcp_sendmsg = SkbEntry(TcpSendmsgCb, lossless=True)
    tcp_sendmsg_fastopen = SkbRequest(TcpSendmsgFastopenCb, Connected, lossless=True)


class SkCallbacks(Interface):
    """What the socket layer takes from transports: the callbacks of `struct sock`, and answers."""

    callers = ("tcp", "udp", "ip", "plug-ins")
    callees = ("socket",)

    sk_ret = Entry(SkRet)
    sk_state_change = Entry(SkStateChange)
    sk_data_ready = SkbEntry(DataReadyCb, lossless=True)
    sk_write_space = Entry(SkWriteSpace)
    sk_error_report = Entry(SkErrorReport)
    sock_queue_err_skb = SkbEntry(SockErrCb)
    inet_csk_reqsk_queue_add = Entry(ReqskQueueAdd)
    tcp_rcvq_ask = Entry(TcpRcvqAsk)
    tcp_fin = Entry(TcpFin)
    tcp_done = Entry(TcpDone)
    proto_unregister = Entry(ProtoUnregister)


def net_protocol_handler(name: str) -> SkbEntry[RcvCb] | None:
    """The entry by which a transport takes packets, by its name in an InetAddProtocol; None where
    there is no such entry."""
    entry = BY_NAME.get(name)
    return entry if isinstance(entry, SkbEntry) and entry.kind is RcvCb else None


def net_protocol_err_handler(name: str) -> Entry[ErrHandler] | None:
    """The same for ICMP errors."""
    entry = BY_NAME.get(name)
    return entry if isinstance(entry, Entry) and entry.kind is ErrHandler else None


def packet_type_func(name: str) -> SkbEntry[None] | None:
    """The same for `struct packet_type`: frames of an Ethernet type."""
    entry = BY_NAME.get(name)
    return entry if isinstance(entry, SkbEntry) and entry.kind is None else None


__all__ = [
    "AnyEntry",
    "InetTransport",
    "Ip",
    "Neighbour",
    "NetProtocol",
    "Netif",
    "NetifReceive",
    "SkCallbacks",
    "SynBacklog",
    "Tcp",
    "TcpProtocol",
    "TransportProto",
    "UdpProtocol",
    "net_protocol_err_handler",
    "net_protocol_handler",
    "packet_type_func",
]
