# SPDX-License-Identifier: MIT
"""Two TCPs over a link that loses, reorders and duplicates: every byte arrives, once, in order."""

import pytest

from skbus.testing.tcphost import SimApp, TcpPair, digest, payload


def transfer(pair: TcpPair, size: int) -> float:
    """`size` bytes from a to b, closed by both; the virtual seconds it took."""
    data = payload(size, size)
    children: list[SimApp] = []
    pair.b.listen(80)
    pair.b.on_accept = children.append
    pair.b.on_fin = lambda app: app.close()
    app = pair.a.connect(80)
    app.send(data, then_close=True)
    took = pair.run(lambda: bool(children) and children[0].done and app.done)
    assert children[0].received == size
    assert children[0].hash.hexdigest() == digest(data)
    assert app.errors == children[0].errors == []
    assert app.queued == 0
    pair.check()
    return took


def test_a_clean_link_carries_a_megabyte_without_retransmission() -> None:
    pair = TcpPair()
    transfer(pair, 1 << 20)
    mib = pair.a.tcp.net.mib
    assert mib["TcpRetransSegs"] == 0
    assert mib["TcpActiveOpens"] == 1
    assert mib["TcpExtTCPOrigDataSent"] >= (1 << 20) // 1448
    assert pair.b.tcp.net.mib["TcpPassiveOpens"] == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_bad_link_carries_every_byte(seed: int) -> None:
    pair = TcpPair(seed=seed, loss=0.05, reorder=0.1, dup=0.01)
    transfer(pair, 300_000)
    assert pair.a.tcp.net.mib["TcpRetransSegs"] > 0
