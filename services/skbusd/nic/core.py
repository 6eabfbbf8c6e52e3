# SPDX-License-Identifier: MIT
"""nic's core: the lowest layer, one process for each device.

The shell (`nic.source` in a process, `skbus.testing` in a simulation) calls `poll_rx` when the
device is readable, and `flush_tx` at a batch's end. ip sends `dev_queue_xmit`. The core reads and
writes frames through `net.device` alone.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.initcall import do_initcalls
from skbus.core.interfaces import Netif, SynBacklog
from skbus.core.skbuff import SkBuff
from skbus.inet.impair import Impairment
from skbusd.nic import dev, synlimit
from skbusd.nic.dim import Dim, net_dim
from skbusd.nic.eth import NO_VNET, VIRTIO_NET_HDR, VIRTIO_NET_HDR_LEN, napi_build_skb
from skbusd.nic.gro import napi_gro_receive
from skbusd.nic.netdev import NicNet
from skbusd.nic.netem import netem_dump, netem_init
from skbusd.nic.proc import proc_net

NAPI_POLL_WEIGHT: Final = 64

SERVES: Final[dict[AnyEntry, Handler]] = {
    **serve(
        Netif,
        Netif.dev_queue_xmit.by(dev.dev_queue_xmit),
        Netif.dev_add_pack.by(dev.dev_add_pack),
        Netif.dev_remove_pack.by(dev.dev_remove_pack),
    ),
    **serve(
        SynBacklog,
        SynBacklog.backlog_mark_ret.by(synlimit.backlog_mark_ret),
        without=(SynBacklog.backlog_mark,),
    ),
}


class NicCore:
    """One device's driver process, without its driver."""

    def __init__(self, net: NicNet) -> None:
        self.net: NicNet = net
        self.entries: Mapping[AnyEntry, Handler] = SERVES
        self._dim = Dim(self.net_rx_action)
        config = net.config
        if config.impair_rx:
            net.netem_rx = netem_init(config.impair_rx, dev.netem_deliver_rx)
        if config.impair_tx:
            net.netem_tx = netem_init(config.impair_tx, dev.netem_deliver_tx)

    def start(self) -> None:
        """Packet types, then the device: tell ip that it is there."""
        do_initcalls(self.net, "net_dev_init", dev.NET_DEV_INIT)

    def peer_up(self, process: str) -> None:
        """ip has come up, and knows nothing of the device."""
        if process == self.net.ip:
            dev.register_netdevice(self.net)
            synlimit.syn_forget(self.net)

    def idle(self) -> None:
        """The batch ends: frames that came out of the impaired link go up."""
        net = self.net
        if net.gro_hash or net.udp_gro:
            dev.napi_complete(net, [])
        if net.netem_rx is not None and not net.netem_rx.heap and not net.netem_rx.impairment:
            net.netem_rx = None
        if net.netem_tx is not None and not net.netem_tx.heap and not net.netem_tx.impairment:
            net.netem_tx = None

    # ---- what the shell calls ----------------------------------------------------------

    def poll_rx(self, budget: int) -> int:
        """Read at most `budget` frames from the device and pass them up; returns how many."""
        n = dev.napi_poll(self.net, budget)
        if n < budget:
            net_dim(self.net, self._dim)
        return n

    def net_rx_action(self, net: NicNet) -> None:
        """Take all that the device has, whether or not an event woke us."""
        while self.poll_rx(NAPI_POLL_WEIGHT) >= NAPI_POLL_WEIGHT:
            pass

    def link_changed(self) -> None:
        """The interface's state may have changed."""
        dev.netdev_state_change(self.net)

    def flush_tx(self) -> None:
        """Send the queued packets."""
        if self.net.txq:
            dev.qdisc_run(self.net)

    def drain_device(self) -> None:
        """For a barrier: all that is queued is sent, all that the device has received is taken."""
        self.flush_tx()
        self.net_rx_action(self.net)

    def set_impair(self, rx: Impairment, tx: Impairment) -> None:
        """Change the link's impairments; frames that are on it keep their times.

        `idle` takes away a link that does nothing, when the last frame has left it. Frames on a
        link are cut into segments, which costs too much for nothing.
        """
        net = self.net
        if net.netem_rx is not None:
            net.netem_rx.impairment = rx
        elif rx:
            net.netem_rx = netem_init(rx, dev.netem_deliver_rx)
        if net.netem_tx is not None:
            net.netem_tx.impairment = tx
        elif tx:
            net.netem_tx = netem_init(tx, dev.netem_deliver_tx)

    def rx(self, frames: Iterable[bytes], vnet: bytes = NO_VNET) -> None:
        """Receive frames that are in memory, as one batch, past the device. vnet: the
        `struct virtio_net_hdr` of all of them."""
        net = self.net
        parsed = VIRTIO_NET_HDR.unpack(vnet[:VIRTIO_NET_HDR_LEN])
        deliver: list[SkBuff] = []
        for frame in frames:
            net.mib["DevRxPackets"] += 1
            net.mib["DevRxBytes"] += len(frame)
            if net.netem_rx is not None:
                dev.netem_rx(net, frame, parsed, -1)
            else:
                skb, _ = napi_build_skb(net, frame, len(frame), parsed, None)
                napi_gro_receive(net, skb, deliver)
        dev.napi_complete(net, deliver)

    # ---- what the shell asks -----------------------------------------------------------

    def held(self) -> int:
        """skbs in the queue, and frames on the impaired link."""
        net = self.net
        return (
            len(net.txq)
            + len(net.gro_hash)
            + len(net.udp_gro)
            + (len(net.netem_rx.heap) if net.netem_rx is not None else 0)
            + (len(net.netem_tx.heap) if net.netem_tx is not None else 0)
        )

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """ip is above; below is the wire."""
        return [self.net.ip], []

    def status(self) -> dict[str, object]:
        """This layer's part of `skbus status`."""
        net = self.net
        device = net.device
        dev.count_missed(net)
        status: dict[str, object] = {
            "dev": device.name,
            "ifindex": device.ifindex,
            "dev_addr": net.dev_addr.hex(":"),
            "mtu": net.mtu,
            "gso_max_size": device.gso_max_size,
            "up": device.up,
            "vnet_hdr": device.vnet_hdr,
            "txq": len(net.txq),
            "rx_usecs": self._dim.usecs,
        }
        if net.netem_rx is not None:
            status["impair_rx"] = netem_dump(net.netem_rx)
        if net.netem_tx is not None:
            status["impair_tx"] = netem_dump(net.netem_tx)
        return status

    def proc(self, name: str) -> object:
        """This process's part of a file of /proc/net (`skbus.inet.proc`)."""
        return proc_net(self.net, name)
