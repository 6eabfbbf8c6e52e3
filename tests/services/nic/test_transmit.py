# SPDX-License-Identifier: MIT
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.checksum import csum_from32to16, csum_tcpudp_nofold
from skbus.core.net import MSEC
from skbus.core.skbuff import CHECKSUM_PARTIAL, SKB_GSO_TCP_ECN, SkBuff
from skbus.inet.headers import ipv4, tcp, udp
from skbusd.nic.dev import vlan_insert_tag
from skbusd.nic.eth import VIRTIO_NET_HDR, VIRTIO_NET_HDR_GSO_TCPV4
from skbusd.nic.gso import GsoError, skb_checksum_help, skb_gso_segment
from skbustest.nicrig import (
    OUR_MAC,
    PEER_MAC,
    NicRig,
    checksums_right,
    data,
    eth_ip,
    out_datagram,
    out_segment,
)

MSS = 1448
HDR = 66


def test_a_super_segment_goes_out_whole() -> None:
    rig = NicRig()
    payload = data(60000)
    skb = out_segment(rig, payload, mss=MSS, pieces=3)
    head = skb.head
    (sent,) = rig.xmit(skb)
    assert VIRTIO_NET_HDR.unpack(sent[:10]) == (1, 1, HDR, MSS, 34, 16)
    assert sent[10:] == head + payload
    assert rig.alloc.in_use() == 0
    assert rig.net.mib["DevTxPackets"] == 1
    assert rig.net.mib["DevTxBytes"] == HDR + 60000
    assert rig.conserved()


@pytest.mark.parametrize(
    ("gso_max_size", "sizes"),
    [
        (65536, [65160] * 4 + [28960]),
        (65537, [65160] * 4 + [28960]),
        (200_000, [199824, 89776]),
        (289_681, [289600]),
        (524_280, [289600]),
    ],
)
def test_as_long_frames_as_the_device_takes(gso_max_size: int, sizes: list[int]) -> None:
    """More than 64 KB is BIG TCP, with an IP length of 0; none is as long as gso_max_size."""
    rig = NicRig(classes=((2048, 64), (16384, 4), (66560, 8)))
    rig.device.gso_max_size = gso_max_size
    payload = data(200 * MSS)
    frames = rig.xmit(out_segment(rig, payload, mss=MSS, pieces=6, flags=0x18))
    assert [len(frame) - 10 - HDR for frame in frames] == sizes
    assert b"".join(frame[10 + HDR :] for frame in frames) == payload
    for frame in frames:
        assert VIRTIO_NET_HDR.unpack(frame[:10]) == (1, 1, HDR, MSS, 34, 16)
        length = len(frame) - 10 - 14
        assert int.from_bytes(frame[26:28], "big") == (length if length < 65536 else 0)
        assert int.from_bytes(frame[24:44], "big") % 0xFFFF == 0
        assert length + 14 < gso_max_size or length < 65536
    assert [frame[57] & 0x08 for frame in frames] == [0] * (len(frames) - 1) + [8]  # PSH
    assert rig.net.mib["DevTxPackets"] == len(frames)
    assert rig.conserved()


@pytest.mark.parametrize(
    ("gso_max_size", "size", "sizes"),
    [
        (524_280, 516_096, [516_096]),
        (524_280, 516_097, [339 * MSS, 516_097 - 339 * MSS]),
        (524_280, 520_192, [339 * MSS, 520_192 - 339 * MSS]),
        (524_280, 520_193, [520_193]),
        (524_280, 362 * MSS + 518_000, [362 * MSS, 339 * MSS, 518_000 - 339 * MSS]),
        (520_000, 700 * MSS, [339 * MSS, 339 * MSS, 22 * MSS]),
    ],
)
def test_no_frame_has_a_length_that_the_kernel_has_no_pages_for(
    gso_max_size: int, size: int, sizes: list[int]
) -> None:
    """15 of 32 KB, and then one each of 16, 8 and 4: one more than an skb has room for."""
    rig = NicRig(classes=((2048, 64), (16384, 4), (66560, 20)))
    rig.device.gso_max_size = gso_max_size
    payload = data(size)
    frames = rig.xmit(out_segment(rig, payload, mss=MSS, pieces=17))
    assert [len(frame) - 10 - HDR for frame in frames] == sizes
    assert b"".join(frame[10 + HDR :] for frame in frames) == payload
    assert all(int.from_bytes(frame[24:44], "big") % 0xFFFF == 0 for frame in frames)
    assert rig.net.mib["DevTxPackets"] == len(frames)
    assert rig.net.mib["DevTxBytes"] == size + len(frames) * HDR
    assert rig.conserved()


def test_one_segment_is_not_segmented() -> None:
    rig = NicRig()
    (sent,) = rig.xmit(out_segment(rig, data(MSS), mss=MSS))
    assert VIRTIO_NET_HDR.unpack(sent[:10]) == (1, 0, 0, 0, 34, 16)


def test_ecn_and_udp_super_packets() -> None:
    rig = NicRig()
    skb = out_segment(rig, data(3000), mss=MSS)
    skb.gso_type |= SKB_GSO_TCP_ECN
    sent, other = rig.xmit(skb, out_datagram(rig, data(3000), mss=1000))
    assert sent[1] == 0x81
    assert VIRTIO_NET_HDR.unpack(other[:10]) == (1, 5, 42, 1000, 34, 6)


def test_no_offload_no_header() -> None:
    rig = NicRig()
    skb = SkBuff(eth_ip(data(30), 1))
    (sent,) = rig.xmit(skb)
    assert sent == bytes(10) + skb.head


def test_lent_skbs_keep_their_slots() -> None:
    rig = NicRig()
    skb = out_segment(rig, data(3000), mss=MSS, lent=True)
    rig.xmit(skb)
    assert rig.alloc.in_use() == 1
    assert rig.conserved()


def test_a_payload_that_is_gone_is_a_drop() -> None:
    rig = NicRig()
    a = out_segment(rig, data(3000), mss=MSS, lent=True)
    rig.net.pool.free_frags(a.frags)
    assert rig.xmit(a) == []
    rig.device.vnet_hdr = False
    assert rig.xmit(a) == []
    assert rig.drops() == {"SKBUS_STALE_PLACE": 2}
    assert rig.net.mib["DevTxErrors"] == 2
    assert rig.conserved()


def test_data_may_lie_behind_a_pulled_header() -> None:
    rig = NicRig()
    skb = out_segment(rig, data(100))
    whole = rig.net.skb_bytes(skb)
    skb.head = b"junk" + skb.head
    skb.data, skb.csum_start = 4, 38
    (sent,) = rig.xmit(skb)
    assert VIRTIO_NET_HDR.unpack(sent[:10]) == (1, 0, 0, 0, 34, 16)
    assert sent[10:] == whole


# ---- software GSO and checksums ----------------------------------------------------------


def test_without_vnet_hdr_frames_are_cut_and_summed() -> None:
    rig = NicRig(vnet_hdr=False)
    payload = data(10000)
    skb = out_segment(rig, payload, mss=MSS, flags=0x99)  # CWR ACK PSH FIN
    frames = rig.xmit(skb)
    assert [len(f) - HDR for f in frames] == [MSS] * 6 + [10000 - 6 * MSS]
    assert all(checksums_right(f) for f in frames)
    assert b"".join(f[HDR:] for f in frames) == payload
    headers = [tcp.parse(f, 34) for f in frames]
    assert [h.seq for h in headers] == [(0xFFFFF000 + i * MSS) & 0xFFFFFFFF for i in range(7)]
    assert [h.flags for h in headers] == [0x90] + [0x10] * 5 + [0x19]
    assert [ipv4.parse(f, 14).id for f in frames] == list(range(9, 16))
    assert {f[:14] + f[54:HDR] for f in frames} == {skb.head[:14] + skb.head[54:]}
    assert rig.net.mib["DevGsoPackets"] == 1
    assert rig.net.mib["DevGsoSegs"] == 7
    assert rig.alloc.in_use() == 0
    assert rig.conserved()


@given(st.integers(1, 9000), st.integers(1, 3000), st.integers(0, 0xFFFFFFFF), st.integers(0, 511))
def test_any_tcp_segmentation(n: int, mss: int, seq: int, flags: int) -> None:
    rig = NicRig(vnet_hdr=False)
    rig.device.mtu = 9000
    payload = data(n)
    frames = [
        s.head
        for s in skb_gso_segment(rig.net, out_segment(rig, payload, mss=mss, seq=seq, flags=flags))
    ]
    assert b"".join(f[HDR:] for f in frames) == payload
    assert all(checksums_right(f) for f in frames)
    assert max(len(f) for f in frames) <= mss + HDR


@given(st.integers(1, 9000), st.integers(1, 3000))
def test_any_udp_segmentation(n: int, mss: int) -> None:
    rig = NicRig(vnet_hdr=False)
    payload = data(n)
    frames = [s.head for s in skb_gso_segment(rig.net, out_datagram(rig, payload, mss=mss))]
    assert b"".join(f[42:] for f in frames) == payload
    assert all(checksums_right(f) for f in frames)
    assert all(udp.parse(f, 34).len == len(f) - 34 for f in frames)


def test_udp_gso_in_software_where_the_kernel_is_too_old() -> None:
    rig = NicRig()
    rig.device.gso_udp = False
    frames = rig.xmit(out_datagram(rig, data(2500), mss=1000))
    assert [len(f) for f in frames] == [10 + 42 + n for n in (1000, 1000, 500)]
    assert {f[:10] for f in frames} == {bytes(10)}
    assert all(checksums_right(f[10:]) for f in frames)


def test_a_udp_checksum_of_zero_is_sent_as_ones() -> None:
    rig = NicRig(vnet_hdr=False)
    zero = next(
        i
        for i in range(65536)
        if _plain_sum(rig, i.to_bytes(2, "big"))  # the payload is a word
    )
    (frame,) = rig.xmit(out_datagram(rig, zero.to_bytes(2, "big")))
    assert udp.parse(frame, 34).check == 0xFFFF
    assert checksums_right(frame)


def _plain_sum(rig: NicRig, payload: bytes) -> bool:
    skb = out_datagram(rig, payload)
    frame = rig.net.skb_bytes(skb)
    rig.net.pool.free_frags(skb.frags)
    total = sum(frame[i] << 8 | frame[i + 1] for i in range(34, len(frame), 2))
    return total % 0xFFFF == 0


@pytest.mark.parametrize(
    "change",
    [
        {"csum_start": 3},
        {"csum_start": 60},
        {"csum_offset": 400},
        {"csum_offset": -40},
        {"csum_start": -1},
    ],
)
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_a_checksum_that_cannot_be_is_a_drop(change: dict[str, int], vnet_hdr: bool) -> None:
    rig = NicRig(vnet_hdr=vnet_hdr)
    skb = out_segment(rig, b"")
    for name, value in change.items():
        setattr(skb, name, value)
    assert rig.xmit(skb) == []
    assert rig.drops() == {"SKB_GSO_SEG": 1}
    assert rig.conserved()


@pytest.mark.parametrize(
    ("at", "value"), [(12, 0x86), (14, 0x65), (23, 17), (46, 0x10), (46, 0xF0)]
)
def test_what_cannot_be_cut_is_a_drop(at: int, value: int) -> None:
    rig = NicRig(vnet_hdr=False)
    skb = out_segment(rig, data(10), mss=5)
    head = bytearray(skb.head)
    head[at] = value
    skb.head = bytes(head)
    skb.gso_segs = 2
    assert rig.xmit(skb) == []
    assert rig.drops() == {"SKB_GSO_SEG": 1}
    assert rig.alloc.in_use() == 0
    assert rig.conserved()


def test_checksum_help_needs_a_field_inside() -> None:
    with pytest.raises(GsoError, match=r"34\+16"):
        skb_checksum_help(bytes(50), 34, 16)


# ---- errors and full devices -------------------------------------------------------------


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        (errno.EMSGSIZE, "PKT_TOO_BIG"),
        (errno.EINVAL, "DEV_HDR"),
        (errno.ENOBUFS, "FULL_RING"),
        (errno.ENETDOWN, "DEV_READY"),
        (errno.EPERM, "NOT_SPECIFIED"),
    ],
)
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_what_the_kernel_refuses_is_a_drop(err: int, reason: str, vnet_hdr: bool) -> None:
    rig = NicRig(vnet_hdr=vnet_hdr)
    rig.device.send = lambda vnet, iov: err  # type: ignore[method-assign]
    rig.xmit(out_segment(rig, data(100)))
    assert rig.drops() == {reason: 1}
    assert rig.alloc.in_use() == 0
    assert rig.conserved()


def test_a_frame_longer_than_the_mtu_is_too_big() -> None:
    rig = NicRig()
    rig.xmit(out_segment(rig, data(3000)))
    assert rig.drops() == {"PKT_TOO_BIG": 1}


def test_a_device_that_is_down_takes_nothing() -> None:
    rig = NicRig()
    rig.device.set_link(up=False)
    rig.xmit(out_segment(rig, data(100)))
    assert rig.drops() == {"DEV_READY": 1}


def test_a_runt_is_a_drop() -> None:
    rig = NicRig()
    rig.xmit(SkBuff(b"short"))
    assert rig.drops() == {"PKT_TOO_SMALL": 1}


@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_a_full_device_is_tried_again_in_order(vnet_hdr: bool) -> None:
    rig = NicRig(vnet_hdr=vnet_hdr)
    rig.device.room = 2
    skbs = [out_segment(rig, data(3 * MSS, i), mss=MSS, seq=i * 3 * MSS) for i in range(3)]
    sent = rig.xmit(*skbs)
    assert len(sent) == 2
    assert rig.core.held() == (1 if vnet_hdr else 3)
    assert rig.conserved()
    rig.device.room = -1
    rig.advance(2_000_000)
    sent += rig.sent()
    offset = 10 if vnet_hdr else 0
    payload = b"".join(f[offset + HDR :] for f in sent)
    assert payload == b"".join(data(3 * MSS, i) for i in range(3))
    assert rig.core.held() == 0
    assert rig.conserved()


def test_a_full_queue_drops_the_newest() -> None:
    rig = NicRig(txqueuelen=2)
    rig.device.room = 0
    rig.xmit(*[out_segment(rig, data(10, i)) for i in range(5)])
    assert rig.drops() == {"QDISC_DROP": 3}
    assert rig.net.mib["DevTxDropped"] == 3
    assert rig.core.held() == 2
    rig.device.room = -1
    rig.advance(2_000_000)
    assert [f[-10:] for f in rig.sent()] == [data(10, 0), data(10, 1)]
    assert rig.conserved()


# ---- 802.1Q ------------------------------------------------------------------------------


@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_frames_of_a_vlan_get_its_tag(vnet_hdr: bool) -> None:
    rig = NicRig(vnet_hdr=vnet_hdr, vlan=5)
    skb = out_segment(rig, data(2000), mss=1000)
    bare = skb.head
    frames = rig.xmit(skb)
    if vnet_hdr:
        ((frame,),) = [frames]
        assert VIRTIO_NET_HDR.unpack(frame[:10]) == (1, 1, HDR + 4, 1000, 38, 16)
        assert frame[10:80] == bare[:12] + b"\x81\x00\0\5" + bare[12:]
        return
    assert len(frames) == 2
    for frame in frames:
        assert frame[12:16] == b"\x81\x00\0\5"
        assert checksums_right(frame[:12] + frame[16:])


def test_a_tag_is_inserted_once() -> None:
    rig = NicRig()
    skb = SkBuff(PEER_MAC + OUR_MAC + b"\x08\x00" + bytes(20))
    skb.vlan_tci = 0x6007
    skb.ip_summed, skb.csum_start = CHECKSUM_PARTIAL, 14
    vlan_insert_tag(rig.net, skb)
    vlan_insert_tag(rig.net, skb)
    assert skb.head[12:18] == b"\x81\x00\x60\x07\x08\x00"
    assert len(skb.head) == 38
    assert skb.csum_start == 18


@pytest.mark.parametrize("lent", [True, False])
def test_a_big_tcp_segment_leaves_in_packets_that_the_kernel_takes(lent: bool) -> None:
    """As one packet of IPv4 cannot tell such a length; also where the device is full in between."""
    mss = 1448
    payload = data(3 * 45 * mss + 2 * mss + 700)
    rig = NicRig(classes=((66560, 16),))
    skb = out_segment(rig, payload, mss=mss, flags=0x98, lent=lent, pieces=4)
    rig.device.room = 1
    sent = rig.xmit(skb)
    assert len(sent) == 1
    rig.device.room = -1
    rig.advance(2 * MSEC)
    sent += rig.sent()
    got = b""
    for i, frame in enumerate(sent):
        hdr, packet = VIRTIO_NET_HDR.unpack(frame[:10]), frame[10:]
        assert hdr[:6] == (1, VIRTIO_NET_HDR_GSO_TCPV4, 66, mss, 34, 16)
        ip = ipv4.parse(packet, 14)
        assert ipv4.ip_fast_csum_ok(packet, 14, 20)
        assert (ip.tot_len, ip.id) == (len(packet) - 14, 9 + 45 * i)
        th = tcp.parse(packet, 34)
        assert th.seq == (0xFFFFF000 + len(got)) & 0xFFFFFFFF
        assert th.flags == (0x90, 0x10, 0x10, 0x18)[i]
        seed = csum_from32to16(csum_tcpudp_nofold(ip.saddr, ip.daddr, ip.tot_len - 20, 6))
        assert th.check == seed
        got += packet[66:]
    assert len(sent) == 4
    assert got == payload
    assert rig.net.mib["DevTxPackets"] == 4
    assert rig.net.mib["DevTxBytes"] == sum(map(len, sent)) - 40
    assert rig.conserved()
    assert rig.alloc.in_use() == (4 if lent else 0)


def test_a_big_tcp_segment_that_is_none_is_dropped() -> None:
    rig = NicRig(classes=((66560, 16),))
    skb = out_segment(rig, data(100_000), mss=1448, pieces=2)
    skb.gso_type = 0
    assert rig.xmit(skb) == []
    assert rig.drops() == {"DEV_HDR": 1}
    assert rig.conserved()
