# SPDX-License-Identifier: MIT
"""docs/tutorial.md, as far as reading it can tell; `tests/readme/test_tutorial.py` runs it."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/tutorial.md"
ROW: Final = re.compile(r"^    (\w+) +((?:nic|ip|tcp|udp|socket)/\w+\.py) +(\w+/)?\w+\.c$", re.M)
LOGGED: Final = re.compile(r"^    (?:nic\.eth0|ip|tcp|udp|socket) +(\w+)$", re.M)


def test_the_page_fits_into_80_columns() -> None:
    assert [line for line in PAGE.read_text().splitlines() if len(line) > 80] == []


ROWS: Final = [(found[1], found[2]) for found in ROW.finditer(PAGE.read_text())]


@pytest.mark.parametrize(("function", "file"), ROWS)
def test_each_function_is_in_the_file_that_the_page_names(function: str, file: str) -> None:
    source = (ROOT / "services/skbusd" / file).read_text()
    assert re.search(rf"^def {function}\(", source, re.M)


def test_the_tables_have_each_function_that_the_page_follows() -> None:
    """The way of a ping and of a request, as its logs show them; a name's underscores aside."""
    named = {function for function, _ in ROWS}
    followed = {found[1].lstrip("_") for found in LOGGED.finditer(PAGE.read_text())}
    elsewhere = {"ip_local_out", "inet_lookup_listener", "tcp_v4_send_reset", "kfree_skb_reason"}
    elsewhere.add("inet_lookup_established")  # tcp_v4_rcv does its work
    assert followed - named - elsewhere == {"tcp_retransmit_skb"}
    assert named <= followed
