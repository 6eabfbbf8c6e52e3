# SPDX-License-Identifier: MIT
"""No item of the right types raises anything out of ip, and no skb is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.core.entry import AnyEntry
from skbusd.ip.core import SERVES
from skbustest.hostile import calls
from skbustest.iphost import IpHost


@settings(max_examples=60)
@given(st.lists(calls(SERVES), max_size=8), st.integers(0, 1))
def test_any_item(batch: list[tuple[AnyEntry, object]], forward: int) -> None:
    host = IpHost(sysctl={"net.ipv4.ip_forward": forward}, two=True)
    host.net.tracing = True
    host.learn()
    for entry, item in batch:
        host.deliver(entry, item)
    host.run_for(40)
    host.core.status()
    assert host.core.held() == 0
