# SPDX-License-Identifier: MIT
"""The rdm process without I/O: what enters it, its start and its end."""

from collections.abc import Mapping
from typing import Final

from skbus.core.abi import InetAddProtocol, InetDelProtocol, ProtoUnregister
from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.initcall import InitStep, do_initcalls, unwind
from skbus.core.interfaces import InetTransport, Ip, NetProtocol, SkCallbacks, TransportProto
from skbus.core.net import Net
from skbus_rdm import rdm
from skbus_rdm.netns import RdmNet
from skbus_rdm.wire import IPPROTO_RDM

SERVES: Final[dict[AnyEntry, Handler]] = {
    **serve(
        NetProtocol,
        NetProtocol.handler.by(rdm.rdm_rcv),
        NetProtocol.err_handler.by(rdm.rdm_err),
    ),
    **serve(
        InetTransport,
        InetTransport.inet_add_protocol_ret.by(rdm.inet_add_protocol_ret),
        InetTransport.ip_route_output_ret.by(rdm.ip_route_output_ret),
        InetTransport.rt_cache_flush.by(rdm.rt_cache_flush),
        InetTransport.dst_mtu.by(rdm.dst_mtu),
        InetTransport.inetdev_event.by(rdm.inetdev_event),
        without=(InetTransport.ip_mc_ret,),
    ),
    **serve(
        TransportProto,
        TransportProto.init.by(rdm.rdm_init_sock),
        TransportProto.bind.by(rdm.rdm_get_port),
        TransportProto.connect.by(rdm.rdm_connect),
        TransportProto.disconnect.by(rdm.rdm_disconnect),
        TransportProto.sendmsg.by(rdm.rdm_sendmsg),
        TransportProto.recvmsg.by(rdm.rdm_recvmsg),
        TransportProto.shutdown.by(rdm.rdm_shutdown),
        TransportProto.close.by(rdm.rdm_close),
        TransportProto.setsockopt.by(rdm.rdm_setsockopt),
        TransportProto.getsockopt.by(rdm.rdm_getsockopt),
        without=(TransportProto.listen, TransportProto.accept),
    ),
}


def inet_add_protocol(net: RdmNet) -> None:
    """`inet_add_protocol`, which ip carries out."""
    item = InetAddProtocol(
        IPPROTO_RDM, net.name, NetProtocol.handler.name, NetProtocol.err_handler.name
    )
    net.call("ip", Ip.inet_add_protocol, item)


def inet_del_protocol(net: RdmNet) -> None:
    """`inet_del_protocol`: from now on ip answers protocol 253 with ICMP."""
    net.call("ip", Ip.inet_del_protocol, InetDelProtocol(IPPROTO_RDM, net.name))


def proto_unregister(net: RdmNet) -> None:
    """The socket layer is not to wait for us any more."""
    net.call("socket", SkCallbacks.proto_unregister, ProtoUnregister(net.name))


STEPS: Final = (
    InitStep("proto", lambda net: None, proto_unregister),
    InitStep("inet_add_protocol(RDM)", inet_add_protocol, inet_del_protocol),
)


class RdmCore:
    """`skbus.core.net.Core` for rdm."""

    net: Net
    entries: Mapping[AnyEntry, Handler] = SERVES

    def __init__(self, net: RdmNet) -> None:
        self.net = net
        self.rdm = net

    def start(self) -> None:
        """Register with ip. (The socket layer loads its part when a socket is asked for.)"""
        do_initcalls(self.net, "rdm_init", STEPS)

    def exit(self) -> None:
        """The plug-in is pulled out: nobody sends to us any more."""
        unwind(self.net, "rdm_init", STEPS)

    def peer_up(self, process: str) -> None:
        """ip has forgotten us, or the socket layer its sockets."""
        if process == "ip":
            inet_add_protocol(self.rdm)
        elif process == "socket":
            for out in tuple(self.rdm.out.values()):
                if out.timer is not None:
                    self.net.del_timer(out.timer)
            self.rdm.out.clear()
            self.rdm.socks.clear()
            self.rdm.ports.clear()

    def idle(self) -> None:
        """Nothing is put off to the end of a batch."""

    def held(self) -> int:
        """Messages are kept as bytes, not as skbs."""
        return 0

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """As those of every transport."""
        return ["socket"], ["ip"]

    def status(self) -> dict[str, object]:
        """For `skbus status`."""
        net = self.rdm
        return {
            "ports": sorted(net.ports),
            "associations": len(net.out),
            "heard": len(net.heard),
            **net.counters,
        }

    def proc(self, name: str) -> object:
        """We have no part in Linux's files of /proc/net."""
        return None
