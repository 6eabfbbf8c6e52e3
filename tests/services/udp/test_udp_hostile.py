# SPDX-License-Identifier: MIT
"""No item of the right types raises anything out of udp, and no skb is lost."""

from hypothesis import given
from hypothesis import strategies as st

from skbus.core.entry import AnyEntry
from skbusd.udp.core import SERVES
from skbustest.hostile import calls
from skbustest.udphost import ANY, UdpHost


@given(st.lists(calls(SERVES), max_size=10))
def test_any_item(batch: list[tuple[AnyEntry, object]]) -> None:
    host = UdpHost()
    host.net.tracing = True
    for sk in (1, 2, 3):
        host.socket(sk, ANY, (4000, 53, 0)[sk - 1])
    host.connect(3)
    for entry, item in batch:
        host.deliver(entry, item)
    host.run_for(10)
    host.core.status()
    assert host.core.held() == 0
