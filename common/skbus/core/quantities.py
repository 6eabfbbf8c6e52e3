# SPDX-License-Identifier: MIT
"""Times, rates and shares as people write them: "20ms", "100mbit", "5%".

Used by the configuration (`skbus.stack.config`), by the impaired link (`skbus.inet.impair`), by
load scenarios and by simulations. A text that is no such quantity is a ValueError, which says what
would be one.
"""

import re
from collections.abc import Mapping
from typing import Final

_TIME: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_RATE: Final = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}


def _quantity(text: str, units: Mapping[str, int]) -> int | None:
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]+)\s*", text.lower())
    if found is None or found[2] not in units:
        return None
    return round(float(found[1]) * units[found[2]])


def parse_time(value: object) -> int:
    """ "20ms" as ns. A bare number has no unit, and is refused unless it is 0."""
    ns = _quantity(value, _TIME) if isinstance(value, str) else None
    if ns is None and value in (0, "0"):
        ns = 0
    if ns is None:
        raise ValueError("takes a time with its unit, such as 20ms, 1.5s or 300us")
    return ns


def parse_rate(value: object) -> int:
    """ "100mbit" as bits per second; 0 is no limit."""
    rate = _quantity(value, _RATE) if isinstance(value, str) else None
    if rate is None and value in (0, "0"):
        rate = 0
    if rate is None:
        raise ValueError("takes a rate with its unit, such as 100mbit, 1gbit or 64kbit")
    return rate


def parse_fraction(value: object) -> float:
    """ "5%" or 0.05 as 0.05."""
    try:
        if isinstance(value, str):
            text = value.strip()
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            share = float(value)
        else:
            raise ValueError
        if not 0 <= share <= 1:
            raise ValueError
    except ValueError:
        raise ValueError("takes a percentage such as 5%, or a fraction from 0 to 1") from None
    return share
