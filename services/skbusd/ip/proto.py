# SPDX-License-Identifier: MIT
"""ip as a transport: `TransportProto` for raw and ping sockets (`raw_prot`, `ping_prot`).

The socket layer calls by the socket's number. The call goes on to the function that Linux's
`struct proto` names for that kind of socket. The common part of both kinds is in `inet_sock`.
"""

from typing import Final

from skbus.core.abi import GetPort, InitSock, UdpSendmsgCb
from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.interfaces import TransportProto
from skbus.core.skbuff import SkBuff
from skbus.core.uapi import SOCK_RAW
from skbusd.ip import af_inet, inet_sock, ip_sockglue, ping, raw
from skbusd.ip.netns import IpNet


def init(net: IpNet, item: InitSock) -> None:
    """`raw_sk_init`, `ping_init_sock`"""
    if item.type == SOCK_RAW:
        raw.raw_sk_init(net, item)
    else:
        ping.ping_init_sock(net, item)


def bind(net: IpNet, item: GetPort) -> None:
    """`raw_bind`, `ping_bind`"""
    sk = net.inet_socks.get(item.sk)
    if sk is not None and sk.ping:
        ping.ping_bind(net, item)
    else:
        raw.raw_bind(net, item)


def sendmsg(net: IpNet, skb: SkBuff) -> None:
    """`raw_sendmsg`, `ping_v4_sendmsg`"""
    cb = skb.cb
    assert isinstance(cb, UdpSendmsgCb)
    sk = net.inet_socks.get(cb.sk)
    if sk is not None and sk.ping:
        ping.ping_v4_sendmsg(net, skb)
    else:
        raw.raw_sendmsg(net, skb)


SERVES: Final[dict[AnyEntry, Handler]] = serve(
    TransportProto,
    TransportProto.init.by(init),
    TransportProto.bind.by(bind),
    TransportProto.connect.by(inet_sock.ip4_datagram_connect),
    TransportProto.disconnect.by(inet_sock.udp_disconnect),
    TransportProto.sendmsg.by(sendmsg),
    TransportProto.recvmsg.by(inet_sock.sk_recvmsg),
    TransportProto.close.by(af_inet.inet_release),
    TransportProto.setsockopt.by(ip_sockglue.ip_setsockopt),
    TransportProto.getsockopt.by(ip_sockglue.ip_getsockopt),
    without=(TransportProto.listen, TransportProto.accept, TransportProto.shutdown),
)
