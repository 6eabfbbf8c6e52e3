# SPDX-License-Identifier: MIT
from random import Random
from typing import Any

import pytest

from skbus.core.abi import RegisterNetdevice
from skbus.core.interfaces import Netif, NetifReceive
from skbus.core.net import MSEC
from skbus.core.skbuff import CHECKSUM_UNNECESSARY, GSO_MAX_SIZE
from skbus.inet.impair import Impairment
from skbusd.nic.netdev import SOFTWARE_FEATURES
from skbustest.nicrig import (
    OUR_MAC,
    NicRig,
    checksums_right,
    data,
    datagram,
    eth_ip,
    out_datagram,
    out_segment,
    segment,
    vnet,
)


def registered(rig: NicRig) -> list[RegisterNetdevice]:
    return [
        item
        for entry, item in rig.net.outbox.pop("ip", [])
        if entry is NetifReceive.register_netdevice
    ]


def test_the_device_is_registered_at_start_and_when_ip_comes_up() -> None:
    rig = NicRig()
    rig.core.start()
    rig.core.peer_up("ip")
    rig.core.peer_up("tcp")
    want = RegisterNetdevice(
        "nic.eth0", "eth0", 2, OUR_MAC, 1500, SOFTWARE_FEATURES, GSO_MAX_SIZE, True
    )
    assert registered(rig) == [want, want]


def test_configured_mac_and_mtu_win() -> None:
    rig = NicRig(dev_addr=b"\x02\0\0\0\0\x77", mtu=1280)
    rig.core.start()
    (item,) = registered(rig)
    assert (item.dev_addr, item.mtu) == (b"\x02\0\0\0\0\x77", 1280)


def test_link_changes_are_told_once() -> None:
    rig = NicRig()
    rig.core.link_changed()
    assert registered(rig) == []
    rig.device.set_link(up=False)
    rig.core.link_changed()
    rig.core.link_changed()
    rig.device.set_link(up=True, mtu=9000)
    rig.core.link_changed()
    assert [(item.up, item.mtu) for item in registered(rig)] == [(False, 1500), (True, 9000)]
    assert [event[1] for event in rig.net.log_events] == ["netdev_state_change"] * 2


def test_barrier_and_status() -> None:
    rig = NicRig(impair_tx=Impairment(delay=5 * MSEC), impair_rx=Impairment(loss=1.0))
    assert rig.core.barrier_edges() == (["ip"], [])
    rig.device.deliver([segment(b"x")])
    rig.core.entries[Netif.dev_queue_xmit](rig.net, out_segment(rig, b""))
    rig.net.skb_received += 1
    rig.core.drain_device()
    status = rig.core.status()
    assert status["mtu"] == 1500
    assert status["impair_rx"] == {
        "lost": 1,
        "overflowed": 0,
        "duplicated": 0,
        "corrupted": 0,
        "marked": 0,
        "reordered": 0,
        "held": 0,
    }
    assert rig.core.held() == 1
    assert rig.conserved()


def test_rx_takes_frames_past_the_device() -> None:
    rig = NicRig()
    rig.core.rx([segment(data(2900, i), seq=1 + 2900 * i) for i in range(2)])
    (skb,) = rig.up()
    assert rig.net.pool.gather(skb.frags) == data(2900) + data(2900, 1)
    assert rig.conserved()


def test_odd_udp_super_packets_of_a_local_sender_become_datagrams() -> None:
    """Here, one with IP options."""
    rig = NicRig()
    frame = datagram(data(2500), options=b"\1\1\1\0")
    got = rig.receive(frame, vnet=vnet(flags=1, gso_type=5, gso_size=1000, start=38, offset=6))
    assert [skb.len - 32 for skb in got] == [1000, 1000, 500]
    assert {skb.ip_summed for skb in got} == {CHECKSUM_UNNECESSARY}
    assert len({skb.id for skb in got}) == 1
    assert rig.receive(segment(data(2500)), vnet=vnet(flags=1, gso_type=5, gso_size=1000)) == []
    assert rig.drops() == {"SKB_GSO_SEG": 1}
    for skb in got:
        rig.net.pool.free_frags(skb.frags)
    assert rig.alloc.in_use() == 1
    assert rig.conserved()


# ---- the impaired link -------------------------------------------------------------------


def test_an_outgoing_super_segment_meets_the_link_as_frames() -> None:
    rig = NicRig(impair_tx=Impairment(delay=20 * MSEC))
    payload = data(5000)
    assert rig.xmit(out_segment(rig, payload, mss=1000)) == []
    assert rig.alloc.in_use() == 0
    assert rig.core.held() == 5
    assert rig.conserved()
    rig.advance(19 * MSEC)
    assert rig.sent() == []
    rig.advance(2 * MSEC)
    frames = [f[10:] for f in rig.sent()]
    assert all(checksums_right(f) for f in frames)
    assert b"".join(f[66:] for f in frames) == payload
    assert rig.core.held() == 0
    assert rig.conserved()


def test_an_incoming_super_segment_is_cut_and_joined_again() -> None:
    rig = NicRig(impair_rx=Impairment(delay=20 * MSEC))
    payload = data(5000)
    frame = segment(payload, check=0x1234)  # a local sender's: not filled in
    # the field holds the pseudo-header's sum, as CHECKSUM_PARTIAL has it
    seed = _seeded(payload)
    assert rig.receive(seed, vnet=vnet(flags=1, gso_type=1, gso_size=1000)) == []
    assert rig.core.held() == 5
    rig.advance(21 * MSEC)
    (skb,) = rig.up()
    assert (skb.gso_segs, skb.gso_size) == (5, 1000)
    assert rig.net.pool.gather(skb.frags) == payload
    assert len(frame) == len(seed)
    assert rig.conserved()


def _seeded(payload: bytes) -> bytes:
    from skbus.core.checksum import csum_tcpudp_nofold
    from skbustest.nicrig import OUR_IP, PEER_IP

    bare = segment(payload)
    seed = csum_tcpudp_nofold(PEER_IP, OUR_IP, len(bare) - 34, 6)
    return bare[:50] + seed.to_bytes(2, "big") + bare[52:]


def test_lost_frames_are_counted() -> None:
    rig = NicRig(impair_tx=Impairment(loss=1.0), impair_rx=Impairment(loss=1.0))
    assert rig.xmit(out_segment(rig, data(5000), mss=1000)) == []
    assert rig.receive(segment(b"x")) == []
    assert rig.drops() == {"SKBUS_IMPAIRED": 6}
    assert rig.conserved()


def test_duplicates_are_born() -> None:
    rig = NicRig(impair_tx=Impairment(dup=1.0), impair_rx=Impairment(dup=1.0))
    frames = rig.xmit(out_datagram(rig, b"x" * 20))
    assert len(frames) == 2
    assert frames[0] == frames[1]
    a, b = rig.receive(segment(data(1000)))
    assert a.id == b.id
    assert a.frags != b.frags
    assert rig.conserved()


def test_damage_is_left_to_be_found_and_the_undamaged_need_not_be_verified() -> None:
    rig = NicRig(impair_rx=Impairment(corrupt=0.5, seed=4))
    found = {True: 0, False: 0}
    for i in range(60):
        for skb in rig.receive(segment(data(400), seq=i)):
            intact = skb.ip_summed == CHECKSUM_UNNECESSARY
            found[intact] += 1
            skb.data = 0
            assert checksums_right(rig.net.skb_bytes(skb)) == intact
    assert min(found.values()) > 10
    assert rig.conserved()


def test_reordering_really_happens_and_gro_does_not_undo_it() -> None:
    rig = NicRig(impair_rx=Impairment(reorder=0.3, seed=1))
    for i in range(20):
        rig.device.deliver([segment(data(100, i), seq=i * 100)])
        rig.core.poll_rx(64)
        rig.core.idle()
        rig.advance(100_000)
    rig.advance(5 * MSEC)
    order = [int.from_bytes(skb.head[38:42], "big") for skb in rig.up()]
    assert sorted(order) == [i * 100 for i in range(20)]
    assert order != sorted(order)
    assert rig.conserved()


def test_rate_limits_the_link() -> None:
    rig = NicRig(impair_tx=Impairment(rate=8_000_000, limit=3))
    rig.xmit(*[out_segment(rig, data(934)) for _ in range(5)])  # 1000 bytes: 1 ms
    assert rig.drops() == {"SKBUS_IMPAIRED": 2}
    counts = []
    for _ in range(4):
        rig.advance(MSEC + MSEC // 8)
        counts.append(len(rig.sent()))
    assert sum(counts) == 3
    assert counts[0] == 1


def test_a_full_device_loses_what_the_link_lets_through() -> None:
    rig = NicRig(impair_tx=Impairment(delay=MSEC))
    rig.device.room = 0
    rig.xmit(out_segment(rig, b"x"))
    rig.advance(2 * MSEC)
    assert rig.drops() == {"FULL_RING": 1}
    assert rig.conserved()


def test_super_packets_that_cannot_be_cut_are_dropped_before_the_link() -> None:
    rig = NicRig(impair_rx=Impairment(delay=MSEC))
    bad = eth_ip(data(3000), 47)
    assert rig.receive(bad, vnet=vnet(flags=0, gso_type=1, gso_size=1000)) == []
    assert rig.drops() == {"SKB_GSO_SEG": 1}
    assert rig.conserved()


# ---- hostile frames ----------------------------------------------------------------------


def mutations(seed: int, n: int) -> list[bytes]:
    """Frames of all kinds, each damaged in a few places, cut, or lengthened."""
    rand = Random(seed)
    bases = [
        segment(data(10)),
        segment(data(1448), flags=0x18),
        segment(data(5000)),
        segment(seq=5, flags=0x02, options=b"\x02\x04\x05\xb4"),
        datagram(data(600)),
        eth_ip(data(200), 1, options=b"\x94\x04\0\0"),
        eth_ip(data(1400), 17, frag_off=0x2000),
        OUR_MAC + OUR_MAC + b"\x81\x00\0\0\x08\x00" + segment(data(300))[14:],
        OUR_MAC + OUR_MAC + b"\x81\x00\0\x05\x08\x00" + segment(data(300))[14:],
        b"\xff" * 6 + OUR_MAC + b"\x08\x06" + bytes(46),
    ]
    out = []
    for _ in range(n):
        frame = bytearray(rand.choice(bases))
        for _ in range(rand.randrange(4)):
            # headers are where it matters
            frame[rand.randrange(min(len(frame), 80 if rand.random() < 0.9 else len(frame)))] = (
                rand.getrandbits(8)
            )
        if rand.random() < 0.1:
            del frame[rand.randrange(len(frame)) :]
        out.append(bytes(frame))
    return out


def hostile_vnet(rand: Random) -> bytes:
    if rand.random() < 0.5:
        return bytes(10)
    return vnet(
        flags=rand.choice([0, 1, 2, 3]),
        gso_type=rand.choice([0, 0, 1, 0x81, 4, 5, 255]),
        gso_size=rand.choice([0, 90, 500, 1448, 65535]),
        start=rand.choice([0, 14, 34, 60, 65535]),
        offset=rand.choice([0, 6, 16, 65535]),
    )


@pytest.mark.parametrize(
    ("seed", "n", "config"),
    [
        (1, 70_000, {}),
        (2, 10_000, {"vnet_hdr": False}),
        (3, 10_000, {"vlan": 5}),
        (
            4,
            10_000,
            {
                "impair_rx": Impairment(
                    loss=0.05, dup=0.05, corrupt=0.05, reorder=0.1, delay=MSEC, seed=1
                )
            },
        ),
    ],
)
def test_mutated_frames_are_passed_or_dropped_with_a_reason(
    seed: int, n: int, config: dict[str, Any]
) -> None:
    rig = NicRig(classes=((2048, 256), (66560, 32)), **config)
    rand = Random(seed)
    frames = mutations(seed, n)
    passed = 0
    for at in range(0, n, 50):
        rig.device.deliver(frames[at : at + 50], hostile_vnet(rand))
        while rig.core.poll_rx(64):
            pass
        rig.core.idle()
        rig.advance(MSEC // 2)
        for skb in rig.up():
            passed += 1
            assert 0 <= skb.data <= len(skb.head)
            rig.net.pool.free_frags(skb.frags)
    rig.advance(10 * MSEC)
    for skb in rig.up():
        rig.net.pool.free_frags(skb.frags)
    rig.core.idle()
    assert passed > n // 20
    assert set(rig.drops()) <= {
        "OTHERHOST",
        "UNHANDLED_PROTO",
        "PKT_TOO_SMALL",
        "SKB_GSO_SEG",
        "SKBUS_IMPAIRED",
    }
    assert rig.net.mib["DevRxPackets"] == sum(map(bool, frames))
    assert rig.alloc.in_use() == (1 if rig.net.rx_buffer.slot else 0)
    assert rig.net.pool.late == 0
    assert rig.conserved()


def test_mutated_skbs_from_ip_are_sent_or_dropped_with_a_reason() -> None:
    rand = Random(9)
    for vnet_hdr in (True, False):
        rig = NicRig(vnet_hdr=vnet_hdr, classes=((2048, 64), (66560, 8)))
        for _ in range(3000):
            skb = out_segment(rig, data(rand.choice([0, 10, 1448, 4000])), mss=1448)
            head = bytearray(skb.head)
            for _ in range(rand.randrange(3)):
                head[rand.randrange(len(head))] = rand.getrandbits(8)
            skb.head = bytes(head[: rand.choice([len(head), len(head), rand.randrange(66)])])
            skb.data = min(rand.choice([0, 0, 0, 14]), len(skb.head))
            skb.csum_start = rand.choice([34, 34, 34, -1, 0, 65])
            skb.csum_offset = rand.choice([16, 16, 6, 2, 60000])
            skb.gso_type = rand.choice([1, 1, 5, 1 << 17, 0])
            skb.gso_size = rand.choice([1448, 1448, 0, 90, 65535])
            skb.ip_summed = rand.choice([3, 3, 3, 0, 1, 2])
            rig.xmit(skb)
            rig.core.idle()
        assert set(rig.drops()) <= {"PKT_TOO_SMALL", "SKB_GSO_SEG", "PKT_TOO_BIG"}
        assert rig.net.mib["DevTxPackets"] > 1000
        assert rig.alloc.in_use() == 0
        assert rig.conserved()
