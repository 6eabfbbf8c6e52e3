# SPDX-License-Identifier: MIT
"""ip: between the drivers and the transports. The core that its shell, or a simulation, drives.

Below: one process for each device, which calls `register_netdevice`, `ip_rcv` and `arp_rcv`, and
takes `dev_queue_xmit`. Above: the transports, which register by `inet_add_protocol`.

Ten modules import each other, because their functions call each other in Linux:

- `route` names the functions that a route leads to: `dst->input` (`ip_input`, `ip_forward`) and
  `dst->output` (`ip_output`). It sends redirects (`icmp`), and asks `igmp` whether a packet's group
  is joined.
- `ip_output` asks `route` for the way out, cuts by `ip_fragment`, and reports by `icmp` packets
  that are too long. It asks `igmp` whether a multicast is also for this host.
- `ip_input` asks `route` for the way in, reassembles by `ip_fragment`, and gives raw sockets their
  copy (`raw`). It answers by `icmp` where no protocol takes a packet.
- `ip_fragment` sends the pieces by `ip_output`, and says by `icmp` that some never came.
- `ip_forward` sends by `ip_output`, says by `icmp` why not, and has `route` send redirects.
- `icmp` sends by `ip_output` and `route`, and gives errors and echo replies to `raw` and `ping`.
- `igmp` sends its reports by `ip_output` and `route`.
- `raw`, `ping` and their common part `inet_sock` send by `ip_output` and `route`.

So each arrow of the circle is a call that the protocols need. `tests/test_circles.py` keeps it at
these ten, and every other module of this layer out of any circle.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.interfaces import Ip, NetifReceive, SynBacklog
from skbus.core.net import Net
from skbusd.ip import (
    af_inet,
    arp,
    devinet,
    fib,
    icmp,
    igmp,
    inet_sock,
    ip_input,
    ip_output,
    mcast,
    neighbour,
    proto,
    protocol,
    route,
    rps,
)
from skbusd.ip.netns import RTN_NAMES, IpNet

SERVES: Final[dict[AnyEntry, Handler]] = {
    **serve(
        NetifReceive,
        NetifReceive.register_netdevice.by(devinet.register_netdevice),
        NetifReceive.ip_rcv.by(ip_input.ip_rcv),
        NetifReceive.arp_rcv.by(arp.arp_rcv),
    ),
    **serve(
        SynBacklog,
        SynBacklog.backlog_mark.by(rps.backlog_mark),
        SynBacklog.backlog_mark_ret.by(rps.backlog_mark_ret),
    ),
    **serve(
        Ip,
        Ip.inet_add_protocol.by(protocol.inet_add_protocol),
        Ip.inet_del_protocol.by(protocol.inet_del_protocol),
        Ip.ip_queue_xmit.by(ip_output.ip_queue_xmit),
        Ip.ip_send_skb.by(ip_output.ip_send_skb),
        Ip.icmp_send.by(icmp.icmp_send_entry),
        Ip.ip_route_output_key.by(route.ip_route_output_key),
        Ip.ipv4_update_pmtu.by(route.ipv4_update_pmtu),
        Ip.ipv4_redirect.by(route.ipv4_redirect),
        Ip.ip_mc_setsockopt.by(mcast.ip_mc_setsockopt),
        Ip.ip_mc_drop_socket.by(mcast.ip_mc_drop_socket),
    ),
    **proto.SERVES,
}

_ABOVE: Final = ("tcp", "udp", "socket")
_ROUTING: Final = ("net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter")
"""Sysctls whose outcome lies in cached routes."""


class IpCore:
    """`skbus.core.net.Core` for ip."""

    net: Net
    entries: Mapping[AnyEntry, Handler]

    def __init__(self, net: IpNet) -> None:
        self.net = net
        self.ipnet = net
        self.entries = SERVES
        self._routing = tuple([net.sysctl[name] for name in _ROUTING])
        self._sysctl_genid = net.ipv4.sysctl_genid

    def start(self) -> None:
        """`inet_init`, ip's part. `InitError` where the configuration makes no sense."""
        af_inet.inet_init(self.ipnet)
        self.ipnet.info(
            "ip_init",
            devices=[dev for dev in self.ipnet.devices if dev != "lo"],
            protocols=sorted(set(self.ipnet.inet_known.values())),
        )

    def peer_up(self, process: str) -> None:
        """A neighbour has started anew. A driver registers by `register_netdevice`, a transport by
        `inet_add_protocol`. Sockets are announced anew, with their groups."""
        net = self.ipnet
        mcast.mc_drop_process(net, process)
        rps.backlog_mark_forget(net)
        if process == "socket":
            net.socket_peer = True
            for sk in tuple(net.inet_socks.values()):
                inet_sock.sk_release(net, sk)

    def idle(self) -> None:
        """The end of a batch: a sysctl that routes depend on may have been set."""
        net = self.ipnet
        if self._sysctl_genid == net.ipv4.sysctl_genid:
            return
        self._sysctl_genid = net.ipv4.sysctl_genid
        routing = tuple([net.sysctl[name] for name in _ROUTING])
        if routing != self._routing:
            self._routing = routing
            route.rt_cache_flush(net)

    def held(self) -> int:
        """Fragments, packets for unresolved neighbours, and the loopback's queue."""
        net = self.ipnet
        return (
            sum(len(q.skbs) for q in net.ip4_frags.values())
            + sum(len(n.arp_queue) for tbl in net.neigh_tables for n in tbl.entries.values())
            + len(net.backlog)
        )

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """The registered transports; the drivers of the registered devices."""
        below = {d.process for d in self.ipnet.dev_by_index.values() if not d.loopback}
        above = [*self.ipnet.transports(), *(("socket",) if self.ipnet.socket_peer else ())]
        return above, sorted(below)

    def missing(self, neighbours: Sequence[str]) -> list[str]:
        """Configured devices, and neighbours above, that have not registered yet. (With a device
        its addresses and routes are there, or wait for its link alone.)"""
        net = self.ipnet
        below = [conf.dev for conf in net.config.devices if not net.devices[conf.dev].registered]
        have = set(net.transports())
        if net.socket_peer:
            have.add("socket")
        above = [p for p in neighbours if p.partition(".")[0] in _ABOVE and p not in have]
        return below + above

    def status(self) -> dict[str, object]:
        """Addresses, routes, neighbours, protocols."""
        net = self.ipnet
        return {
            "addresses": self.addresses(),
            "routes": self.routes(),
            "neighbours": neighbour.neigh_dump(net),
            "protocols": {
                p: " ".join(proto.shards) or proto.process for p, proto in net.inet_protos.items()
            },
            "fragments": {"queues": len(net.ip4_frags), "bytes": net.frag_mem},
            "route_cache": len(net.rt_out) + len(net.rt_in),
            "genid": net.rt_genid,
            "igmp": self.igmp(),
            "raw": [inet_sock.sk_status(sk) for sk in net.inet_socks.values() if not sk.ping],
            "ping": [inet_sock.sk_status(sk) for sk in net.inet_socks.values() if sk.ping],
        }

    def addresses(self) -> list[dict[str, object]]:
        """Every device with its addresses, as `ip addr` shows them."""
        return [
            {
                "dev": dev.name,
                "ifindex": dev.ifindex,
                "up": dev.up,
                "mtu": dev.mtu,
                "lladdr": dev.dev_addr,
                "addresses": [
                    (a.ifa_local, a.ifa_prefixlen, a.ifa_broadcast) for a in dev.ifa_list
                ],
            }
            for dev in self.ipnet.devices.values()
        ]

    def routes(self) -> list[dict[str, object]]:
        """The forwarding table, as `ip route show table all` has it."""
        return [
            {
                "dst": fi.fib_prefix,
                "len": fi.fib_prefixlen,
                "type": RTN_NAMES[fi.fib_type],
                "gateway": fi.fib_gw,
                "dev": fi.fib_dev.name if fi.fib_dev is not None else "",
                "prefsrc": fi.fib_prefsrc,
                "metric": fi.fib_metric,
                "protocol": fi.fib_protocol,
            }
            for fi in fib.fib_dump(self.ipnet.fib)
        ]

    def igmp(self) -> list[dict[str, object]]:
        """The groups of every device, as /proc/net/igmp and /proc/net/mcfilter have them."""
        net = self.ipnet
        return [
            {
                "dev": dev.name,
                "ifindex": dev.ifindex,
                "version": igmp.igmp_version(net, dev),
                "group": im.multiaddr,
                "users": im.users,
                "timer": im.timer.expires - net.now if im.timer and im.timer.pending() else -1,
                "reporter": im.reporter,
                "mode": "include" if im.mode else "exclude",
                "sources": sorted(im.state),
            }
            for dev in net.devices.values()
            for im in dev.mc_list.values()
        ]

    def neighbours(self) -> list[dict[str, object]]:
        """The neighbour table, as `ip neigh` shows it."""
        return neighbour.neigh_dump(self.ipnet)

    def proc(self, name: str) -> object:
        """This process's part of a file of /proc/net (`skbus.inet.proc`)."""
        net = self.ipnet
        return net.proc_net(net, name) if net.proc_net is not None else None
