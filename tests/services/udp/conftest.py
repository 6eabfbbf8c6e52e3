# SPDX-License-Identifier: MIT
from collections.abc import Iterator

import pytest

from skbustest.udphost import UdpHost


@pytest.fixture
def host() -> Iterator[UdpHost]:
    h = UdpHost()
    yield h
    h.check()
