# SPDX-License-Identifier: MIT
"""The device layer (`net/core/dev.c`): the common part of all drivers.

    receive   driver -> napi_poll -> (netem) -> napi_gro_receive -> netif_receive_skb
                     -> ip_rcv, arp_rcv in process ip
    send      dev_queue_xmit (from ip) -> qdisc_run -> dev_hard_start_xmit -> (netem) -> driver

`NicCore` calls `napi_poll` when frames may be there, and `qdisc_run` once at a batch's end. The
driver (`netdev.Device`) is all that does I/O.
"""

import errno
from typing import Final

from skbus.core.abi import PacketType, RegisterNetdevice
from skbus.core.dropreason import SkbDropReason
from skbus.core.initcall import InitStep
from skbus.core.interfaces import NetifReceive, packet_type_func
from skbus.core.net import MSEC, StalePlaceError
from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    ETH_P_ARP,
    ETH_P_IP,
    GSO_MAX_SIZE,
    PACKET_OTHERHOST,
    SKB_GSO_TCPV4,
    SKB_GSO_UDP_L4,
    Place,
    SkBuff,
)
from skbus.core.timer import Timer
from skbus.inet.headers import Buffer
from skbus.inet.headers.ethernet import ETH_HLEN, ETH_P_802_3_MIN
from skbus.inet.headers.tcp import TCP_HLEN, TCPHDR_SYN
from skbus.inet.headers.udp import UDP_HLEN
from skbusd.nic import tso
from skbusd.nic.eth import (
    NO_VNET,
    VIRTIO_NET_HDR,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_UDP_L4,
    VLAN_HLEN,
    VNET_NONE,
    VNET_VALID,
    Vnet,
    napi_build_skb,
    virtio_net_hdr_from_skb,
)
from skbusd.nic.frame import (
    ETH_PROTO,
    IP,
    IP_PROTOCOL,
    IP_SADDR,
    IP_VERSION_IHL,
    PLAIN_IP,
    PORTS_END,
    TCP_FLAGS,
    TH_DOFF,
)
from skbusd.nic.gro import GRO_FRAME, napi_gro_flush, napi_gro_receive
from skbusd.nic.gso import GsoError, skb_gso_segment
from skbusd.nic.netdev import SOFTWARE_FEATURES, Netem, NicNet
from skbusd.nic.netem import netem_enqueue
from skbusd.nic.synlimit import (
    FLAGS,
    MARK_EVERY,
    syn_key,
    syn_mark,
    syn_refused,
)
from skbusd.nic.tcp_gro import tcp_gro_next
from skbusd.nic.udp_gro import udp_gso_plain

_LONG: Final = 65000
"""Payload from which on an skb may be longer than an IPv4 packet."""
_TPID: Final = b"\x81\x00"
"""ETH_P_8021Q"""
_TX_RETRY: Final = MSEC
"""How long a full device is left alone."""
_MISSED_EVERY: Final = 100 * MSEC
"""How often the kernel is asked for frames that it had no room for."""

_TX_ERRORS: Final[dict[int, SkbDropReason]] = {
    errno.EMSGSIZE: "PKT_TOO_BIG",
    errno.EINVAL: "DEV_HDR",
    errno.ENOBUFS: "FULL_RING",
    errno.ENETDOWN: "DEV_READY",
    errno.ENXIO: "DEV_READY",
    errno.ENODEV: "DEV_READY",
    errno.EIO: "DEV_READY",
}


# ---- start -------------------------------------------------------------------------------


def net_dev_init(net: NicNet) -> None:
    """`net_dev_init`: the table of packet types. ip's types are known from the start, before it
    registers them by `dev_add_pack`, so that frames that wait for nic are not lost."""
    net.ptype_base[ETH_P_IP] = (net.ip, NetifReceive.ip_rcv)
    net.ptype_base[ETH_P_ARP] = (net.ip, NetifReceive.arp_rcv)


def net_dev_exit(net: NicNet) -> None:
    """Undo `net_dev_init`."""
    net.ptype_base.clear()


def driver_init(net: NicNet) -> None:
    """The driver's probe: read the link's state and tell ip of the device."""
    net.device.poll_link()
    register_netdevice(net)


NET_DEV_INIT: Final = (
    InitStep("net_dev_init", net_dev_init, net_dev_exit),
    InitStep("register_netdevice", driver_init, lambda net: None),
)
"""The steps of nic's start."""


def dev_add_pack(net: NicNet, pt: PacketType) -> None:
    """`dev_add_pack`: frames of a type go to a process.

    Differs from Linux: a second process for a type is refused; in Linux all get the frames.
    """
    have = net.ptype_base.get(pt.type)
    func = packet_type_func(pt.func)
    error = ""
    if not ETH_P_802_3_MIN <= pt.type <= 0xFFFF:
        error = "no Ethernet type"
    elif have is not None and have[0] != pt.process:
        error = f"taken by {have[0]}"
    elif func is None:
        error = f"no such entry: {pt.func}"
    if error or func is None:
        net.warning("dev_add_pack", type=pt.type, process=pt.process, error=error)
        return
    net.ptype_base[pt.type] = (pt.process, func)
    if net.tracing:
        net.trace("dev_add_pack", type=pt.type, process=pt.process, func=pt.func)


def dev_remove_pack(net: NicNet, pt: PacketType) -> None:
    """`dev_remove_pack`: nobody takes frames of that type any more."""
    if net.ptype_base.get(pt.type) == (pt.process, packet_type_func(pt.func)):
        del net.ptype_base[pt.type]
        if net.tracing:
            net.trace("dev_remove_pack", type=pt.type, process=pt.process)


# ---- the device itself -------------------------------------------------------------------


def register_netdevice(net: NicNet) -> None:
    """Tell ip of the device as it is now."""
    device = net.device
    item = RegisterNetdevice(
        net.name,
        device.name,
        device.ifindex,
        net.dev_addr,
        net.mtu,
        SOFTWARE_FEATURES,
        GSO_MAX_SIZE,
        device.up,
    )
    net.state.registered = item
    net.call(net.ip, NetifReceive.register_netdevice, item)
    if net.tracing:
        net.trace("register_netdevice", dev=device.name, mtu=net.mtu, up=device.up)


def netdev_state_change(net: NicNet) -> None:
    """The link may have changed: look, and tell ip if it has (`NETDEV_UP`, `NETDEV_CHANGEMTU`)."""
    device = net.device
    if not device.poll_link():
        return
    net.mtu = net.config.mtu or device.mtu
    net.dev_addr = net.config.dev_addr or device.dev_addr
    net.info("netdev_state_change", dev=device.name, up=device.up, mtu=net.mtu)
    register_netdevice(net)


# ---- receive -----------------------------------------------------------------------------


def napi_poll(net: NicNet, budget: int) -> int:
    """Take at most `budget` frames from the driver; returns how many there were."""
    device = net.device
    recv = device.recv
    buffer = net.rx_buffer
    deliver: list[SkBuff] = []
    frames = lost = octets = 0
    while frames < budget:
        place, room = buffer.next()
        size = recv(room)
        if size <= 0:
            if not size:
                break
            frames += 1
            lost += 1
            continue
        frames += 1
        octets += size
        flow = buffer.flow
        if flow is not None and place is not None:
            if device.rx_vlan_tci == flow.skb.vlan_tci and tcp_gro_next(
                net, flow, room, size, device.rx_vnet, place
            ):
                buffer.joined(room, size - flow.hlen)
                continue
            place, room = buffer.move(room, size)
        if room[TCP_FLAGS] & FLAGS == TCPHDR_SYN or room[IP_VERSION_IHL] != PLAIN_IP:
            key = syn_key(net, room, size)
            if key and syn_refused(net, key):
                continue
        _receive_frame(net, room, size, place, deliver)
    if frames:
        mib = net.mib
        mib["DevRxPackets"] += frames - lost
        mib["DevRxBytes"] += octets
        mib["DevRxErrors"] += lost
        napi_complete(net, deliver)
        if net.syn_backlog.sent - net.syn_backlog.marked >= MARK_EVERY:
            syn_mark(net)
        _look_for_missed(net)
    return frames


def _receive_frame(
    net: NicNet, room: memoryview, size: int, place: Place | None, deliver: list[SkBuff]
) -> None:
    """Join a frame that the driver has read to a flow of GRO, or make an skb of it."""
    device = net.device
    vlan_tci = device.rx_vlan_tci
    if device.vnet_hdr:
        vnet: Vnet = VIRTIO_NET_HDR.unpack(device.rx_vnet)
    else:
        vnet = _vnet_of_auxdata(device.rx_csum_valid or device.rx_csum_partial)
    if net.netem_rx is not None and not net.netem_rx.spares(_segments(room, size, vnet)):
        netem_rx(net, bytes(room[:size]), vnet, vlan_tci)
        return
    quiet = not net.tracing
    if quiet and (net.udp_gro or deliver or net.gro_hash):
        claim = GRO_FRAME.get(room[IP_PROTOCOL])
        if claim is not None and claim(net, room, size, vnet, place, vlan_tci, deliver):
            return
    skb, kept = napi_build_skb(net, room, size, vnet, place, vlan_tci)
    if skb.gso_type & SKB_GSO_UDP_L4 and not udp_gso_plain(skb):
        deliver += _cut_udp(net, skb)
    else:
        napi_gro_receive(net, skb, deliver)
    if kept:
        buffer = net.rx_buffer
        key = skb.head[IP_SADDR:PORTS_END]
        flow = net.gro_hash.get(key) if skb.gso_type and quiet else None
        frag = skb.frags[0]
        if flow is not None and flow.skb is skb and not isinstance(frag, bytes):
            buffer.taken(flow, key, frag)
        else:
            buffer.slot = None


def _vnet_of_auxdata(valid: bool) -> Vnet:
    """A frame that a local sender left without a checksum counts as verified. The checksum's place
    is not known, so it cannot be filled in."""
    return VNET_VALID if valid else VNET_NONE


def napi_complete(net: NicNet, deliver: list[SkBuff]) -> None:
    """The batch ends: GRO lets go of its flows, and all skbs go up."""
    net.rx_buffer.batch_ends()
    napi_gro_flush(net, deliver)
    for skb in deliver:
        netif_receive_skb(net, skb)


def netif_receive_skb(net: NicNet, skb: SkBuff) -> None:
    """Hand an skb to its protocol (`ptype_base`), in process ip, `data` at the network header."""
    protocol = skb.protocol
    if net.tracing:
        net.trace("netif_receive_skb", skb, protocol=protocol, pkt_type=skb.pkt_type, len=skb.len)
    ptype = net.ptype_base.get(protocol)
    if ptype is not None and skb.pkt_type != PACKET_OTHERHOST:
        skb.data = skb.network_header = ETH_HLEN
        net.call_skb(ptype[0], ptype[1], skb, None)
    elif protocol == -1:
        net.mib["DevRxDropped"] += 1
        net.kfree_skb(skb, "NOMEM")
    elif len(skb.head) < ETH_HLEN:
        net.mib["DevRxErrors"] += 1
        net.kfree_skb(skb, "PKT_TOO_SMALL")
    elif skb.pkt_type == PACKET_OTHERHOST:
        net.kfree_skb(skb, "OTHERHOST")
    else:
        net.mib["DevRxDropped"] += 1
        net.kfree_skb(skb, "UNHANDLED_PROTO", protocol=protocol)


def _cut_udp(net: NicNet, skb: SkBuff) -> list[SkBuff]:
    """A local sender's UDP super-packet that is not plain: datagrams again."""
    try:
        frames = [seg.head for seg in _segment_and_consume(net, skb)]
    except GsoError:
        net.kfree_skb(skb, "SKB_GSO_SEG")
        return []
    out = []
    for frame in frames:
        net.skb_consumed += 1
        out.append(napi_build_skb(net, frame, len(frame), VNET_VALID, None, skb.vlan_tci)[0])
        out[-1].id = skb.id
    return out


def _segment_and_consume(net: NicNet, skb: SkBuff) -> list[SkBuff]:
    """Cut an skb to frames and end it; GsoError leaves it to the caller."""
    try:
        segments = skb_gso_segment(net, skb)
    except StalePlaceError as e:
        raise GsoError(str(e)) from e
    net.consume_skb(skb)
    return segments


def _look_for_missed(net: NicNet) -> None:
    """Ask for missed frames now, or soon if that has just been done."""
    state = net.state
    if net.now - state.rx_poll_at >= _MISSED_EVERY or state.rx_poll_at < 0:
        count_missed(net)
        return
    timer = net.missed_timer
    if timer is None:
        timer = net.missed_timer = Timer(count_missed)
    if timer.expires < 0:
        net.mod_timer(timer, state.rx_poll_at + _MISSED_EVERY)


def count_missed(net: NicNet) -> None:
    """Frames that the kernel dropped because we were too slow: born and dropped at once."""
    net.state.rx_poll_at = net.now
    missed = net.device.missed()
    if missed:
        net.mib["DevRxMissedErrors"] += missed
        name = "SKB_DROP_REASON_FULL_RING"
        net.drops[name] = net.drops.get(name, 0) + missed
        net.skb_born += missed
        net.skb_dropped += missed


# ---- the impaired link, incoming ---------------------------------------------------------


def _segments(room: memoryview, size: int, vnet: Vnet) -> int:
    """How many frames on the wire a read frame stands for."""
    _, gso_type, _, gso_size, start, _ = vnet
    if not gso_type or not gso_size or start + TCP_HLEN > size:
        return 1
    udp = gso_type == VIRTIO_NET_HDR_GSO_UDP_L4
    header = start + (UDP_HLEN if udp else (room[start + TH_DOFF] >> 4) << 2)
    return max(-(-(size - header) // gso_size), 1)


def netem_rx(net: NicNet, frame: bytes, vnet: Vnet, vlan_tci: int) -> None:
    """A frame from the device meets the link as it would be on a wire: cut to segments, with
    checksums."""
    skb = net.alloc_skb(frame, (), data_len=0)
    skb.vlan_tci = vlan_tci
    skb.mac_header = 0
    flags, gso_type, _, gso_size, csum_start, csum_offset = vnet
    if flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        skb.ip_summed = CHECKSUM_PARTIAL
        skb.csum_start = csum_start
        skb.csum_offset = csum_offset
    if gso_type:
        skb.gso_type = SKB_GSO_UDP_L4 if gso_type == VIRTIO_NET_HDR_GSO_UDP_L4 else SKB_GSO_TCPV4
        skb.gso_size = gso_size
    netem = net.netem_rx
    if netem is None:
        net.consume_skb(skb)
        return
    try:
        segments = _segment_and_consume(net, skb)
    except GsoError:
        net.kfree_skb(skb, "SKB_GSO_SEG")
        return
    for seg in segments:
        netem_enqueue(net, netem, seg)


def netem_deliver_rx(net: NicNet, skb: SkBuff, intact: bool) -> None:
    """A frame comes out of the link. It goes on with the others of this batch."""
    frame = skb.head
    vnet = VNET_VALID if intact else VNET_NONE
    net.skb_consumed += 1
    new, _ = napi_build_skb(net, frame, len(frame), vnet, None, skb.vlan_tci)
    new.id = skb.id
    deliver: list[SkBuff] = []
    napi_gro_receive(net, new, deliver)
    for out in deliver:
        netif_receive_skb(net, out)


# ---- send --------------------------------------------------------------------------------


def dev_queue_xmit(net: NicNet, skb: SkBuff) -> None:
    """An skb from ip, `data` at the Ethernet header, joins the queue; a full one drops it."""
    if net.tracing:
        net.trace("dev_queue_xmit", skb, len=skb.len, gso_size=skb.gso_size, qlen=len(net.txq))
    if len(net.txq) >= net.config.txqueuelen:
        qdisc_run(net)
        if len(net.txq) >= net.config.txqueuelen:
            net.mib["DevTxDropped"] += 1
            net.kfree_skb(skb, "QDISC_DROP")
            return
    net.txq.append(skb)


def qdisc_run(net: NicNet) -> None:
    """Give the device the packets that wait for it; where it is full, try again soon."""
    txq = net.txq
    while txq:
        skb = txq.popleft()
        if not dev_hard_start_xmit(net, skb):
            txq.appendleft(skb)
            _retry_xmit(net)
            return


def _retry_xmit(net: NicNet) -> None:
    timer = net.tx_timer
    if timer is None:
        timer = net.tx_timer = Timer(qdisc_run)
    net.mod_timer(timer, net.now + _TX_RETRY)


def dev_hard_start_xmit(net: NicNet, skb: SkBuff) -> bool:
    """Send one skb; False if the device has no room now (the skb stays the caller's)."""
    device = net.device
    data = skb.data
    if net.tracing:
        net.trace("dev_hard_start_xmit", skb, len=skb.len, dev=device.name)
    if len(skb.head) - data < ETH_HLEN:
        _tx_error(net, skb, "PKT_TOO_SMALL")
        return True
    if not device.up:
        _tx_error(net, skb, "DEV_READY")
        return True
    netem = net.netem_tx
    if netem is not None and netem.spares(skb.gso_segs or 1):
        netem = None
    if netem is not None or (
        (skb.ip_summed == CHECKSUM_PARTIAL or skb.gso_size) and not _offloaded(net, skb)
    ):
        return _xmit_segments(net, skb, netem)
    if skb.vlan_tci >= 0 or net.config.vlan:
        vlan_insert_tag(net, skb)
        data = skb.data
    if skb.data_len > _LONG and (
        len(skb.head) - data + skb.data_len - ETH_HLEN > tso.longest(device.gso_max_size)
        or tso.awkward(skb.data_len)
    ):
        try:
            err = tso.tso_xmit(net, skb)
        except StalePlaceError:
            _tx_error(net, skb, "SKBUS_STALE_PLACE")
            return True
        if err:
            if err == errno.EAGAIN:
                return False
            _tx_error(net, skb, _TX_ERRORS.get(err, "NOT_SPECIFIED"))
            return True
        data = skb.data
    iov: list[Buffer] = [skb.head[data:] if data else skb.head]
    if skb.frags:
        view = net.pool.view
        try:
            iov += [f if isinstance(f, bytes) else view(f) for f in skb.frags]
        except StalePlaceError:
            _tx_error(net, skb, "SKBUS_STALE_PLACE")
            return True
    vnet = virtio_net_hdr_from_skb(skb) if skb.ip_summed == CHECKSUM_PARTIAL else NO_VNET
    err = device.send(vnet, iov)
    if err:
        if err == errno.EAGAIN:
            return False
        _tx_error(net, skb, _TX_ERRORS.get(err, "NOT_SPECIFIED"))
        return True
    mib = net.mib
    mib["DevTxPackets"] += 1
    mib["DevTxBytes"] += len(skb.head) - data + skb.data_len
    net.consume_skb(skb)
    return True


def _offloaded(net: NicNet, skb: SkBuff) -> bool:
    """Can the device do the offloads that this skb needs?"""
    device = net.device
    if not device.vnet_hdr or skb.ip_summed != CHECKSUM_PARTIAL:
        return False
    if skb.gso_size and not (device.gso_udp if skb.gso_type & SKB_GSO_UDP_L4 else net.tso):
        return False
    start = skb.csum_start
    return (
        ETH_HLEN <= start - skb.data <= 0xFFFF
        and 0 <= skb.csum_offset <= len(skb.head) - start - 2
        and 0 <= skb.gso_size <= 0xFFFF
    )


def _xmit_segments(net: NicNet, skb: SkBuff, netem: Netem | None) -> bool:
    """Cut and sum in software, then send the frames, or give them to the impaired link."""
    try:
        segments = skb_gso_segment(net, skb)
    except StalePlaceError:
        _tx_error(net, skb, "SKBUS_STALE_PLACE")
        return True
    except GsoError:
        _tx_error(net, skb, "SKB_GSO_SEG")
        return True
    net.consume_skb(skb)
    if netem is not None:
        for seg in segments:
            netem_enqueue(net, netem, seg)
        return True
    for i, seg in enumerate(segments):
        if not _xmit_frame(net, seg):
            net.txq.extendleft(reversed(segments[i + 1 :]))
            net.txq.appendleft(seg)
            _retry_xmit(net)
            return True
    return True


def _xmit_frame(net: NicNet, skb: SkBuff) -> bool:
    """Send a whole linear frame as it is."""
    if skb.vlan_tci >= 0 or net.config.vlan:
        vlan_insert_tag(net, skb)
    err = net.device.send(NO_VNET, [skb.head])
    if err == errno.EAGAIN:
        return False
    if err:
        _tx_error(net, skb, _TX_ERRORS.get(err, "NOT_SPECIFIED"))
        return True
    net.mib["DevTxPackets"] += 1
    net.mib["DevTxBytes"] += len(skb.head)
    net.consume_skb(skb)
    return True


def netem_deliver_tx(net: NicNet, skb: SkBuff, intact: bool) -> None:
    """Send a frame that has passed the impaired link. A full device loses it."""
    if not _xmit_frame(net, skb):
        _tx_error(net, skb, "FULL_RING")


def vlan_insert_tag(net: NicNet, skb: SkBuff) -> None:
    """Put the skb's 802.1Q tag, or the configured network's, into its head: once, even if a full
    device makes us try again."""
    head = skb.head[skb.data :]
    if head[ETH_PROTO:IP] == _TPID:
        return
    tci = skb.vlan_tci if skb.vlan_tci >= 0 else net.config.vlan
    if skb.csum_start >= 0:
        skb.csum_start += VLAN_HLEN - skb.data
    tag = _TPID + bytes((tci >> 8 & 0xFF, tci & 0xFF))
    skb.head = head[:ETH_PROTO] + tag + head[ETH_PROTO:]
    skb.data = 0


def _tx_error(net: NicNet, skb: SkBuff, reason: SkbDropReason) -> None:
    net.mib["DevTxErrors" if reason != "FULL_RING" else "DevTxDropped"] += 1
    net.kfree_skb(skb, reason)
