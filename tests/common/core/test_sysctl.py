# SPDX-License-Identifier: MIT
"""The names of sysctls are Linux's, and one that changes nothing says so."""

import os
from pathlib import Path
from typing import Final

import pytest

from skbus.core.netns_ipv4 import FIELDS
from skbus.core.sysctl import SPECS

ROOT: Final = Path(__file__).resolve().parents[3]
CODE: Final = "".join(
    path.read_text()
    for top in ("common", "services")
    for path in (ROOT / top).rglob("*.py")
    if path.name != "sysctl.py"
)
PROC: Final = Path("/proc/sys")
NEWEST: Final = (6, 18)
"""The Linux whose names we know: an older one lacks some of them."""

ELSEWHERE: Final = {
    "net.ipv4.tcp_cubic_hystart": "a parameter of the module tcp_cubic",
    "net.ipv4.tcp_cubic_hystart_detect": "a parameter of the module tcp_cubic",
    "net.ipv4.tcp_cubic_hystart_low_window": "a parameter of the module tcp_cubic",
    "net.ipv4.tcp_max_ssthresh": "an old name, which has no effect in either",
}
"""Sysctls that Linux does not have under this name, and why we do."""

NEIGH: Final = "net.ipv4.neigh.default."
IGMP: Final = "igmpv{version}_unsolicited_report_interval"


def is_read(name: str) -> bool:
    """Does code name it? Those of neighbours are read behind a prefix, two of IGMP by version."""
    if name.startswith(NEIGH):
        return f'"{name.removeprefix(NEIGH)}"' in CODE
    if name.endswith("_unsolicited_report_interval"):
        return IGMP in CODE
    if name in FIELDS:
        return f"net.ipv4.{FIELDS[name]}" in CODE
    return f'"{name}"' in CODE


@pytest.mark.parametrize("name", SPECS)
def test_each_is_read_or_says_that_it_is_not(name: str) -> None:
    idle = SPECS[name].doc.startswith("no effect")
    read = is_read(name)
    assert read or idle, f"{name}: no code reads it, and its doc does not begin with 'no effect'"
    assert not (read and idle), f"{name}: code reads it, and its doc says 'no effect'"


def test_each_name_is_one_of_linux() -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < NEWEST:
        pytest.skip(f"this machine's Linux is older than {NEWEST[0]}.{NEWEST[1]}")
    names = {name for name in SPECS if name.startswith("net.ipv4.")}
    missing = {name for name in names if not (PROC / name.replace(".", "/")).exists()}
    assert missing == set(ELSEWHERE), "not in /proc/sys of this machine, or not listed in ELSEWHERE"
