# SPDX-License-Identifier: MIT
from collections.abc import Iterator

import pytest

from skbustest.tcphost import TcpHost


@pytest.fixture
def host() -> Iterator[TcpHost]:
    h = TcpHost()
    yield h
    h.check()
