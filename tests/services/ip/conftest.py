# SPDX-License-Identifier: MIT
from collections.abc import Callable, Iterator

import pytest

from skbustest.iphost import IpHost


@pytest.fixture
def make_host() -> Iterator[Callable[..., IpHost]]:
    """Makes hosts; checks of each at the end that no skb was lost."""
    hosts: list[IpHost] = []

    def make(**options: object) -> IpHost:
        hosts.append(IpHost(**options))  # type: ignore[arg-type]
        return hosts[-1]

    yield make
    for host in hosts:
        host.check()


@pytest.fixture
def host(make_host: Callable[..., IpHost]) -> IpHost:
    return make_host()
