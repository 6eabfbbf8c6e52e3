# SPDX-License-Identifier: MIT
"""udp: between ip and the socket layer. The core that its shell, or a simulation, drives."""

from collections.abc import Mapping
from typing import Final

from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.interfaces import InetTransport, TransportProto, UdpProtocol
from skbus.core.net import Net
from skbus.inet.transport import (
    inet_add_protocol,
    inet_add_protocol_ret,
    inetdev_event,
    ip_mc_drop_socket,
    ip_mc_restore,
)
from skbusd.udp import af_inet, datagram, ip_sockglue, route, table, udp, udp_output, udplite
from skbusd.udp.netns import UdpNet
from skbusd.udp.proc import proc_net

SERVES: Final[dict[AnyEntry, Handler]] = {
    **serve(
        UdpProtocol,
        UdpProtocol.udp_rcv.by(udp.udp_rcv),
        UdpProtocol.udp_err.by(udp.udp_err),
        UdpProtocol.udplite_rcv.by(udplite.udplite_rcv),
        UdpProtocol.udplite_err.by(udplite.udplite_err),
    ),
    **serve(
        InetTransport,
        InetTransport.inet_add_protocol_ret.by(inet_add_protocol_ret),
        InetTransport.ip_route_output_ret.by(route.ip_route_output_ret),
        InetTransport.rt_cache_flush.by(route.rt_cache_flush),
        InetTransport.dst_mtu.by(route.dst_mtu),
        InetTransport.inetdev_event.by(inetdev_event),
        InetTransport.ip_mc_ret.by(ip_sockglue.ip_mc_ret),
    ),
    **serve(
        TransportProto,
        TransportProto.init.by(datagram.udp_init_sock),
        TransportProto.bind.by(table.udp_v4_get_port),
        TransportProto.connect.by(datagram.ip4_datagram_connect),
        TransportProto.disconnect.by(datagram.udp_disconnect),
        TransportProto.sendmsg.by(udp_output.udp_sendmsg),
        TransportProto.recvmsg.by(udp.udp_recvmsg),
        TransportProto.shutdown.by(datagram.udp_shutdown),
        TransportProto.close.by(datagram.udp_lib_close),
        TransportProto.setsockopt.by(ip_sockglue.udp_setsockopt),
        TransportProto.getsockopt.by(ip_sockglue.udp_getsockopt),
        without=(TransportProto.listen, TransportProto.accept),
    ),
}


class UdpCore:
    """`skbus.core.net.Core` for udp."""

    net: Net
    entries: Mapping[AnyEntry, Handler]

    def __init__(self, net: UdpNet) -> None:
        self.net = net
        self.udpnet = net
        self.entries = SERVES

    def start(self) -> None:
        """`inet_init`, udp's part: make the tables, and register with ip."""
        af_inet.inet_init(self.udpnet)

    def peer_up(self, process: str) -> None:
        """ip has forgotten us, or the socket layer its sockets."""
        net = self.udpnet
        if process == "ip":
            net.dst_cache.clear()
            net.rt_genid = 0
            inet_add_protocol(net, af_inet.UDP_PROTOCOL)
            inet_add_protocol(net, af_inet.UDPLITE_PROTOCOL)
            route.ask_again(net)
            ip_mc_restore(net, list(net.socks.values()))
        elif process == "socket" and net.socks:
            net.info("peer_up", process=process, forgotten=len(net.socks))
            for sk in net.socks.values():
                table.udp_lib_unhash(net, sk)
                ip_mc_drop_socket(net, sk)
            net.socks.clear()
            net.wspace.clear()
            net.udp_memory_allocated = 0

    def idle(self) -> None:
        """The batch ends: tell sockets how many of their posted bytes have gone."""
        if self.udpnet.wspace:
            udp_output.udp_write_space(self.udpnet)

    def held(self) -> int:
        """Datagrams that wait for a route."""
        return sum(
            1
            for request in self.udpnet.requests.values()
            for waiter in request.waiters
            if waiter.skb is not None
        )

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """The socket layer is above, ip below."""
        return ["socket"], ["ip"]

    def status(self) -> dict[str, object]:
        """The sockets, as /proc/net/udp has them."""
        net = self.udpnet
        return {
            "sockets": [
                {
                    "sk": sk.sk,
                    "protocol": sk.protocol,
                    "local": (sk.inet_rcv_saddr, sk.inet_num),
                    "remote": (sk.inet_daddr, sk.inet_dport),
                    "rmem_alloc": sk.sk_rmem_alloc,
                    "drops": sk.sk_drops,
                }
                for sk in net.socks.values()
                if sk.inet_num
            ],
            "routes": len(net.dst_cache),
            "waiting": net.pending,
            "memory": net.udp_memory_allocated,
        }

    def proc(self, name: str) -> object:
        """This process's part of a file of /proc/net (`skbus.inet.proc`)."""
        return proc_net(self.udpnet, name)
