# SPDX-License-Identifier: MIT
"""The tcp process without I/O: its entries, and its part when it starts or a neighbour comes back.
The shell (`skbus.bus.service`) or the simulation drives it.

    socket   requests (tcp.py, tcp_sockopt.py)        ip   segments, errors, routes (tcp_ipv4.py)

Read first: RFC 9293 3.3 to 3.10; then `tcp_ipv4.tcp_v4_rcv` and `tcp.tcp_sendmsg`, where every
segment's way begins.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from skbus.core.abi import BacklogMark, InetdevEvent, RtCacheFlush
from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.interfaces import InetTransport, SynBacklog, Tcp, TcpProtocol, TransportProto
from skbus.core.timer import Timer
from skbus.inet.transport import inet_add_protocol, inet_add_protocol_ret
from skbusd.tcp import af_inet, tcp, tcp_close, tcp_ipv4, tcp_sockopt, tcp_timer
from skbusd.tcp.const import (
    STATE_NAMES,
    TCP_CLOSE,
    TCP_LISTEN,
    TCP_SYN_SENT,
)
from skbusd.tcp.inet_connection_sock import inet_csk_listen_stop, sock_orphan, tcp_done
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.proc import proc_net
from skbusd.tcp.sk_lock import (
    sk_held,
    sk_locked,
    tcp_prequeue_process,
    tcp_release_all,
    tcp_release_slices,
)
from skbusd.tcp.tcp_autocork import tcp_push_corked
from skbusd.tcp.tcp_bbr import TcpBbr
from skbusd.tcp.tcp_cong import TcpReno, tcp_register_congestion_control
from skbusd.tcp.tcp_cubic import TcpCubic
from skbusd.tcp.tcp_dctcp import TcpDctcp
from skbusd.tcp.tcp_handshake import tcp_send_active_reset
from skbusd.tcp.tcp_write_space import tcp_flush_write_space


def inetdev_event(net: TcpNet, event: InetdevEvent) -> None:
    """An address of ours has come or gone, or its device has changed."""
    if event.up:
        net.inetdev[event.addr] = event
    else:
        net.inetdev.pop(event.addr, None)


def rt_cache_flush(net: TcpNet, item: RtCacheFlush) -> None:
    """Routes changed. Of a route only the MTU is kept here, and ICMP corrects it."""
    net.rt_genid = item.genid


def backlog_mark(net: TcpNet, item: BacklogMark) -> None:
    """All that nic sent up in front of this mark has been taken: send the mark back."""
    net.call("ip", SynBacklog.backlog_mark_ret, item)


SERVES: Final[dict[AnyEntry, Handler]] = {
    **serve(
        TcpProtocol,
        TcpProtocol.tcp_v4_rcv.by(tcp_ipv4.tcp_v4_rcv),
        TcpProtocol.tcp_v4_err.by(tcp_ipv4.tcp_v4_err),
    ),
    **serve(
        InetTransport,
        InetTransport.inet_add_protocol_ret.by(inet_add_protocol_ret),
        InetTransport.ip_route_output_ret.by(tcp.ip_route_output_ret),
        InetTransport.rt_cache_flush.by(rt_cache_flush),
        InetTransport.dst_mtu.by(tcp_ipv4.tcp_dst_mtu),
        InetTransport.inetdev_event.by(inetdev_event),
        without=(InetTransport.ip_mc_ret,),  # a stream is in no multicast group
    ),
    **serve(
        SynBacklog,
        SynBacklog.backlog_mark.by(backlog_mark),
        without=(SynBacklog.backlog_mark_ret,),
    ),
    **serve(
        TransportProto,
        TransportProto.init.by(tcp.tcp_v4_init_sock),
        TransportProto.bind.by(tcp.tcp_v4_get_port),
        TransportProto.listen.by(tcp.tcp_listen_start),
        TransportProto.accept.by(tcp.tcp_accept),
        TransportProto.connect.by(tcp.tcp_v4_connect),
        TransportProto.disconnect.by(sk_locked(tcp_close.tcp_disconnect)),
        TransportProto.recvmsg.by(tcp.tcp_cleanup_rbuf),
        TransportProto.shutdown.by(sk_locked(tcp_close.tcp_shutdown)),
        TransportProto.close.by(sk_locked(tcp_close.tcp_close)),
        TransportProto.setsockopt.by(sk_locked(tcp_sockopt.tcp_setsockopt)),
        TransportProto.getsockopt.by(sk_locked(tcp_sockopt.tcp_getsockopt)),
        without=(TransportProto.sendmsg,),
    ),
    **serve(
        Tcp,
        Tcp.tcp_sendmsg.by(tcp.tcp_sendmsg),
        Tcp.tcp_sendmsg_fastopen.by(tcp.tcp_sendmsg_fastopen),
    ),
}


def tcp_register_own_congestion_controls(net: TcpNet) -> None:
    """Register the controls of this package; to do so twice does no harm."""
    for ca in (TcpReno(), TcpCubic(), TcpBbr(), TcpDctcp()):
        tcp_register_congestion_control(net, ca)


class TcpCore:
    """The core of the tcp process."""

    entries: Mapping[AnyEntry, Handler] = SERVES

    def __init__(self, net: TcpNet) -> None:
        self.net = net
        net.tcp_pace_kick = tcp_timer.tcp_pace_kick
        net.tcp_compressed_ack_kick = tcp_timer.tcp_compressed_ack_kick
        net.tcp_write_timer = tcp_timer.tcp_write_timer
        net.tcp_delack_timer = tcp_timer.tcp_delack_timer
        net.tcp_keepalive_timer = tcp_timer.tcp_keepalive_timer
        net.sk_backlog_rcv = tcp_ipv4.tcp_v4_do_rcv
        net.slice_timer = Timer(tcp_release_slices)
        tcp_register_own_congestion_controls(net)

    def start(self) -> None:
        """`inet_init`, tcp's part: secrets, tables, and that ip knows of us."""
        af_inet.inet_init(self.net)

    def peer_up(self, process: str) -> None:
        """A neighbour has been started. ip must learn of us, and gets our open questions again. A
        restarted socket layer knows no socket of its earlier life."""
        if process == "ip":
            inet_add_protocol(self.net, af_inet.TCP_PROTOCOL)
            for req, sk in self.net.route_reqs.items():
                tcp.ip_route_ask(self.net, self.net.socks[sk], req)
        elif process == "socket":
            self._socket_layer_reborn()

    def idle(self) -> None:
        """The end of a batch: send corked data, work off prequeues, report acknowledged bytes."""
        if self.net.autocork:
            tcp_push_corked(self.net)
        net = self.net
        if net.tcp_prequeues:
            for number in tuple(net.tcp_prequeues):
                tcp_prequeue_process(net, number)
        if net.write_space:
            tcp_flush_write_space(net)

    def held(self) -> int:
        """skbs in out-of-order queues, backlogs and prequeues, and sends that were put off."""
        return self.net.ofo_skbs + sk_held(self.net)

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """Above is the socket layer, below is ip. Sends that were put off come before a barrier."""
        if self.net.sk_owned:
            tcp_release_all(self.net)
        return ["socket"], ["ip"]

    def missing(self, neighbours: Sequence[str]) -> list[str]:
        """ip tells of addresses, lo's at least, once it has us registered."""
        return ["addresses"] if "ip" in neighbours and not self.net.inetdev else []

    def status(self) -> dict[str, object]:
        """Counts of what there is."""
        net = self.net
        states: dict[str, int] = {}
        for tp in net.socks.values():
            name = STATE_NAMES[tp.state]
            states[name] = states.get(name, 0) + 1
        return {
            "sockets": len(net.socks),
            "states": states,
            "timewait": net.tw_count,
            "orphans": net.orphan_count,
            "out_of_order_skbs": net.ofo_skbs,
            "memory": {
                "pages": net.tcp_memory_allocated,
                "pressure": bool(net.tcp_memory_pressure),
                "rmem": sum(tp.rmem_alloc + tp.ofo_bytes for tp in net.socks.values()),
                "wmem": sum(tp.wmem_charged for tp in net.socks.values()),
            },
            "bad_requests": net.bad_requests,
            "congestion_controls": sorted(net.cong),
        }

    def proc(self, name: str) -> object:
        """This process's part of a file of /proc/net (`skbus.inet.proc`)."""
        return proc_net(self.net, name)

    # ---- a process that has died -------------------------------------------------------------

    def _socket_layer_reborn(self) -> None:
        net = self.net
        for tp in tuple(net.socks.values()):
            if tp.number not in net.socks:
                continue  # a child that went with its listener
            tp.done_sent = True
            sock_orphan(net, tp)
            if tp.state == TCP_LISTEN:
                for child in inet_csk_listen_stop(net, tp):
                    child.done_sent = True
            elif tp.state not in (TCP_CLOSE, TCP_SYN_SENT):
                tcp_send_active_reset(net, tp)
            tcp_done(net, tp)


__all__ = ["SERVES", "TcpCore", "TcpNet"]
