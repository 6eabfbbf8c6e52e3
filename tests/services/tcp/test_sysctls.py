# SPDX-License-Identifier: MIT
"""A sysctl of TCP that changes nothing says so."""

from pathlib import Path

from skbus.core.sysctl import SPECS

ROOT = Path(__file__).resolve().parents[3]
CODE = "".join(
    path.read_text()
    for top in ("common", "services")
    for path in (ROOT / top).rglob("*.py")
    if path.name != "sysctl.py"
)


def test_each_is_read_or_says_that_it_is_not() -> None:
    names = [name for name in SPECS if name.startswith("net.ipv4.tcp_")]
    assert len(names) > 60
    for name in names:
        idle = SPECS[name].doc.startswith("no effect")
        assert (f'"{name}"' in CODE) != idle, name
