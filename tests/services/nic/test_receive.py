# SPDX-License-Identifier: MIT
import pytest

from skbus.core.interfaces import NetifReceive
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    SKB_GSO_TCP_ECN,
    SKB_GSO_TCPV4,
)
from skbus.inet.headers import arp, ethernet, vlan
from skbustest.nicrig import (
    OUR_IP,
    OUR_MAC,
    PEER_IP,
    PEER_MAC,
    REGION,
    NicRig,
    data,
    datagram,
    eth_ip,
    segment,
    vnet,
)


def test_a_large_payload_stays_in_the_slot_that_it_was_read_into() -> None:
    rig = NicRig()
    payload = data(60000)
    (skb,) = rig.receive(segment(payload), vnet=vnet(flags=1, gso_type=1, gso_size=1448))
    assert skb.head == segment(payload)[:66]
    assert len(skb.frags) == 1
    place = skb.frags[0]
    assert isinstance(place, tuple)
    assert place[0] == REGION
    assert place[3:] == (66, 60000)
    assert rig.net.pool.gather(skb.frags) == payload
    assert (skb.gso_size, skb.gso_segs) == (1448, 42)
    assert skb.gso_type & SKB_GSO_TCPV4
    assert (skb.ip_summed, skb.csum_start, skb.csum_offset) == (CHECKSUM_PARTIAL, 34, 16)
    assert (skb.data, skb.mac_header, skb.network_header) == (14, 0, 14)
    assert skb.protocol == 0x0800
    assert skb.pkt_type == PACKET_HOST
    assert skb.dev == skb.skb_iif == rig.device.ifindex
    assert skb.tstamp == rig.net.now
    assert rig.conserved()


@pytest.mark.parametrize("n", [0, 1, 200, 256])
def test_a_small_payload_travels_in_head(n: int) -> None:
    rig = NicRig()
    (skb,) = rig.receive(segment(data(n)))
    assert skb.head == segment(data(n))
    assert skb.frags == ()
    assert rig.alloc.in_use() == 1  # the slot that waits for the next frame


@pytest.mark.parametrize("n", [257, 1448, 2048])
def test_a_middle_payload_is_copied_to_a_small_slot(n: int) -> None:
    rig = NicRig()
    (skb,) = rig.receive(segment(data(n)))
    assert len(skb.head) == 66
    place = skb.frags[0]
    assert isinstance(place, tuple)
    assert rig.alloc.sizes[place[1]] == 2048
    assert rig.net.pool.gather(skb.frags) == data(n)
    rig.net.consume_skb(skb)
    assert rig.alloc.in_use() == 1


def test_ip_and_tcp_options_are_in_head() -> None:
    rig = NicRig()
    payload = segment(data(3000), options=b"\x01" * 40)[34:]
    (skb,) = rig.receive(eth_ip(payload, options=b"\x94\x04\0\0"))
    assert len(skb.head) == 14 + 24 + 60
    assert skb.data_len == 3000


@pytest.mark.parametrize(
    ("frag_off", "head"), [(0x2000, 34), (0x2010, 34), (0x10, 34), (0x4000, 42)]
)
def test_fragments_have_only_ip_in_head(frag_off: int, head: int) -> None:
    rig = NicRig()
    (skb,) = rig.receive(eth_ip(data(1400), 17, frag_off=frag_off))
    assert len(skb.head) == head


def test_checksum_states() -> None:
    rig = NicRig()
    states = {}
    for flags in (0, 1, 2):
        (skb,) = rig.receive(datagram(b"x"), vnet=vnet(flags=flags, offset=6))
        states[flags] = skb.ip_summed
    assert states == {0: CHECKSUM_NONE, 1: CHECKSUM_PARTIAL, 2: CHECKSUM_UNNECESSARY}


def test_a_partial_checksum_of_an_unknown_protocol_is_valid() -> None:
    rig = NicRig()
    (skb,) = rig.receive(eth_ip(data(400), 132), vnet=vnet(flags=1, start=34, offset=8))
    assert skb.ip_summed == CHECKSUM_UNNECESSARY


def test_ecn_super_segment() -> None:
    rig = NicRig()
    (skb,) = rig.receive(segment(data(3000)), vnet=vnet(flags=1, gso_type=0x81, gso_size=1000))
    assert skb.gso_type & SKB_GSO_TCP_ECN
    assert skb.gso_segs == 3


def test_without_vnet_hdr_the_status_comes_beside_the_frame() -> None:
    rig = NicRig(vnet_hdr=False)
    (skb,) = rig.receive(datagram(b"x"))
    assert skb.ip_summed == CHECKSUM_NONE
    rig.device.rx_csum_valid = True
    (skb,) = rig.receive(datagram(b"x"))
    assert skb.ip_summed == CHECKSUM_UNNECESSARY
    rig.device.rx_csum_valid, rig.device.rx_csum_partial = False, True
    (skb,) = rig.receive(datagram(b"x"))
    assert skb.ip_summed == CHECKSUM_UNNECESSARY


def test_pkt_type_by_destination() -> None:
    rig = NicRig()
    types = []
    for dest in (OUR_MAC, ethernet.BROADCAST, b"\x01\0\x5e\0\0\x01"):
        (skb,) = rig.receive(datagram(b"x", dest=dest))
        types.append(skb.pkt_type)
    assert types == [PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST]
    assert rig.receive(datagram(b"x", dest=b"\x02\0\0\0\0\x09")) == []
    assert rig.drops() == {"OTHERHOST": 1}
    assert rig.conserved()


def test_arp_goes_to_arp_rcv() -> None:
    rig = NicRig()
    body = arp.build(1, PEER_MAC, PEER_IP, bytes(6), OUR_IP)
    rig.device.deliver([ethernet.build(ethernet.BROADCAST, PEER_MAC, 0x0806) + body + bytes(18)])
    rig.core.poll_rx(64)
    ((entry, skb),) = rig.net.outbox["ip"]
    assert entry is NetifReceive.arp_rcv
    assert skb.head[skb.data :] == body + bytes(18)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (bytes(5), "PKT_TOO_SMALL"),
        (OUR_MAC + PEER_MAC + b"\x86\xdd" + bytes(60), "UNHANDLED_PROTO"),
        (OUR_MAC + PEER_MAC + b"\x88\xa8" + bytes(60), "UNHANDLED_PROTO"),
    ],
)
def test_what_is_for_nobody_is_dropped_with_its_reason(frame: bytes, reason: str) -> None:
    rig = NicRig()
    assert rig.receive(frame) == []
    assert rig.drops() == {reason: 1}
    assert rig.conserved()


# ---- 802.1Q ------------------------------------------------------------------------------


def tagged(tci: int, frame: bytes) -> bytes:
    return frame[:12] + b"\x81\x00" + vlan.build(tci, 0)[:2] + frame[12:]


def test_a_tag_in_the_frame_is_taken_out() -> None:
    rig = NicRig(vlan=5)
    frame = segment(data(500))
    (skb,) = rig.receive(tagged(0x2005, frame), vnet=vnet(flags=1, start=38))
    assert skb.vlan_tci == 0x2005
    assert skb.head == frame[:66]
    assert rig.net.pool.gather(skb.frags) == data(500)
    assert skb.csum_start == 34
    assert rig.conserved()


def test_a_tag_beside_the_frame() -> None:
    rig = NicRig(vlan=5, vnet_hdr=False)
    rig.device.rx_vlan_tci = 5
    (skb,) = rig.receive(segment(data(5)))
    assert skb.vlan_tci == 5


@pytest.mark.parametrize("tpid", [b"\x81\x00", b"\x88\xa8"])
@pytest.mark.parametrize("pcp", [0, 5, 7])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_tag_that_only_has_a_priority_is_none(times: int, pcp: int, tpid: bytes) -> None:
    """VID 0 (802.1Q 9.6), inside the frame or beside it, also around another of its kind."""
    frame = segment(data(500))
    for _ in range(times):
        frame = frame[:12] + tpid + (pcp << 13).to_bytes(2, "big") + frame[12:]
    rig = NicRig()
    rig.device.rx_vlan_tci = 0xE000 if times == 3 else -1
    (skb,) = rig.receive(frame)
    assert (skb.head[12:14], skb.protocol, skb.pkt_type) == (b"\x08\x00", 0x0800, PACKET_HOST)
    assert skb.vlan_tci == pcp << 13
    assert rig.conserved()
    request = ethernet.build(ethernet.BROADCAST, PEER_MAC, 0x0806) + bytes(28)
    (skb,) = rig.receive(tagged(pcp << 13, request))
    assert skb.protocol == 0x0806


def test_a_priority_around_a_tag_of_ours() -> None:
    rig = NicRig(vlan=5)
    assert rig.receive(tagged(0x6000, tagged(5, segment(b"x"))))
    assert not rig.receive(tagged(5, tagged(0x6000, segment(b"x"))))


@pytest.mark.parametrize(
    ("ours", "tci", "passes"), [(0, 0x6000, True), (0, 7, False), (5, 7, False)]
)
def test_frames_of_other_vlans_are_for_other_hosts(ours: int, tci: int, passes: bool) -> None:
    rig = NicRig(vlan=ours)
    assert bool(rig.receive(tagged(tci, segment(b"x")))) == passes
    assert rig.drops() == ({} if passes else {"OTHERHOST": 1})


def test_a_vlan_takes_no_untagged_frames_and_no_double_tags() -> None:
    rig = NicRig(vlan=5)
    assert rig.receive(segment(b"x")) == []
    assert rig.receive(tagged(5, tagged(5, segment(b"x")))) == []
    assert rig.drops() == {"OTHERHOST": 2}
    assert rig.conserved()


# ---- hash --------------------------------------------------------------------------------


def test_the_hash_is_of_the_flow() -> None:
    rig = NicRig()
    hashes = []
    for frame in (
        segment(b"x", seq=1),
        segment(data(900), seq=2, flags=0x18),
        segment(b"x", sport=5001),
        eth_ip(segment(b"x")[34:], options=b"\x94\x04\0\0"),
    ):
        (skb,) = rig.receive(frame)
        hashes.append(skb.hash)
    assert hashes[0] == hashes[1] == hashes[3] != hashes[2]
    assert 0 < hashes[0] < 2**32


def test_fragments_of_one_datagram_have_one_hash() -> None:
    rig = NicRig()
    first, second = rig.receive(
        eth_ip(data(800), 17, frag_off=0x2000), eth_ip(data(40), 17, frag_off=100)
    )
    assert first.hash == second.hash != 0


# ---- pool and ring -----------------------------------------------------------------------


def test_with_no_large_slot_left_small_packets_still_pass() -> None:
    rig = NicRig(classes=((2048, 1), (66560, 1)))
    (large,) = rig.receive(segment(data(30000)))
    (small,) = rig.receive(segment(data(1000)))
    (tiny,) = rig.receive(segment(data(100)))
    assert rig.receive(segment(data(1000)), segment(data(30000))) == []
    assert rig.drops() == {"NOMEM": 2}
    assert rig.net.mib["DevRxDropped"] == 2
    rig.net.consume_skb(large)
    rig.net.consume_skb(small)
    assert rig.net.pool.gather(rig.receive(segment(data(40000)))[0].frags) == data(40000)
    assert tiny.data_len == 0
    assert rig.conserved() is False  # we consumed in the nic's name what we had received
    assert rig.net.skb_consumed == 2


def test_frames_that_the_kernel_had_no_room_for_are_counted() -> None:
    rig = NicRig()
    rig.device.lost = 3
    rig.receive(segment(b"x"))
    rig.device.lost = 4
    rig.receive(segment(b"x"))
    assert rig.net.mib["DevRxMissedErrors"] == 3
    rig.advance(200_000_000)
    assert rig.net.mib["DevRxMissedErrors"] == 7
    assert rig.drops() == {"FULL_RING": 7}
    assert rig.conserved()


def test_a_lost_frame_is_not_the_end() -> None:
    rig = NicRig()
    (skb,) = rig.receive(b"", segment(b"x"))
    assert skb.headlen() == 53
    assert rig.net.mib["DevRxErrors"] == 1


def test_counters() -> None:
    rig = NicRig()
    rig.receive(segment(data(10)), segment(data(20)))
    assert rig.net.mib["DevRxPackets"] == 2
    assert rig.net.mib["DevRxBytes"] == 66 * 2 + 30


def test_budget() -> None:
    rig = NicRig()
    rig.device.deliver([segment(b"x")] * 5)
    assert [rig.core.poll_rx(2), rig.core.poll_rx(2), rig.core.poll_rx(2), rig.core.poll_rx(2)] == [
        2,
        2,
        1,
        0,
    ]


def test_trace_names_the_way() -> None:
    rig = NicRig()
    rig.net.tracing = True
    (skb,) = rig.receive(segment(b"x"))
    rig.xmit(skb)
    names = [event[2] for event in rig.net.trace_events if event[3] == skb.id]
    assert names == [
        "napi_gro_receive",
        "netif_receive_skb",
        "dev_queue_xmit",
        "dev_hard_start_xmit",
    ]
