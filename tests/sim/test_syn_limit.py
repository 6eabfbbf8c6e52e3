# SPDX-License-Identifier: MIT
"""SYNs that lead to nothing, from somebody on the wire: they keep nobody else out (RFC 4987)."""

from collections.abc import Callable

import pytest

from skbus.core.checksum import csum_partial, csum_tcpudp_magic
from skbus.core.net import MSEC, SEC
from skbus.inet.headers import ethernet, ipv4, tcp
from skbus.testing import World
from skbusd.nic.synlimit import SYN_BACKLOG
from skbustest.packets import inet_aton

OUR, OTHER = "10.0.0.2", "10.0.0.77"
ATTACKER = b"\x02\0\0\0\x06\x66"
SYN = 2


def syn(i: int, *, dport: int = 80, to: str = OUR, wrong: int = 0) -> bytes:
    saddr, daddr = bytes((10, 0, 0, 100 + i % 100)), inet_aton(to)
    header = tcp.build(1024 + i, dport, i, 0, SYN, 1000)
    csum = csum_tcpudp_magic(saddr, daddr, len(header), 6, csum_partial(header)) ^ wrong
    header = header[:16] + csum.to_bytes(2, "big") + header[18:]
    return ipv4.build(saddr, daddr, 6, 20 + len(header)) + header


KINDS: dict[str, Callable[[int], bytes]] = {
    "bad checksum": lambda i: syn(i, wrong=0x1234),
    "no listener": lambda i: syn(i, dport=81),
    "not our address": lambda i: syn(i, to=OTHER),
    "half open": syn,
    "too short": lambda i: syn(i)[:36],
}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_who_repeats_syns_keeps_nobody_out(kind: str, shards: int) -> None:
    """More than there are places, then three of them again each second."""
    with World(seed=4) as world:
        dut = world.host("dut", f"{OUR}/24", tcp_shards=shards)
        user = world.host("user", "10.0.0.1/24")
        world.link(user, dut)
        world.run(world.start(dut.listen(80)))
        mac = dut.devices["eth0"].dev_addr
        frames = [ethernet.build(mac, ATTACKER, 0x0800) + KINDS[kind](i) for i in range(2100)]
        for at in range(0, 2100, 100):
            for frame in frames[at : at + 100]:
                user.ports["eth0"].send(frame)
            world.advance(10 * MSEC)
        assert dut.net("nic.eth0").syn_backlog.sent >= (SYN_BACKLOG if kind != "too short" else 0)

        async def connect() -> None:
            for _ in range(5):
                for frame in frames[:3]:
                    user.ports["eth0"].send(frame)
                sock = await user.connect(OUR, 80)
                await sock.close()
                await world.sleep(SEC)

        start = world.now
        world.run(world.start(connect()))
        assert world.now - start < 5 * SEC + 100 * MSEC  # no SYN of the user's was sent again
        assert not dut.net("nic.eth0").drops.get("SKB_DROP_REASON_CPU_BACKLOG")
