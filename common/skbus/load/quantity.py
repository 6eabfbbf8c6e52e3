# SPDX-License-Identifier: MIT
"""Sizes, times and distributions as a scenario writes them: "4KiB", "exp(100ms)".

Used by `skbus.load.scenario` (which validates) and the workers (which draw from them). Times are
seconds here, as everywhere in `skbus.load`; sizes are bytes.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Final, Literal

from skbus.core.quantities import parse_rate, parse_time

_SIZES: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}


def seconds(value: object) -> float:
    """ "20ms" as 0.02; It also takes "2min". A bare number has no unit and is refused."""
    if isinstance(value, str) and (
        found := re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(min|h)\s*", value)
    ):
        return float(found[1]) * (60 if found[2] == "min" else 3600)
    return parse_time(value) / 1e9


def size(value: object) -> int:
    """ "4KiB" or 4096 as 4096."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60:
        return value
    found = (
        re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmg]?i?b|)\s*", value.lower())
        if isinstance(value, str)
        else None
    )
    if found is None or found[2] not in _SIZES:
        raise ValueError("takes a size in bytes, such as 1448, 4KiB or 1MB")
    return round(float(found[1]) * _SIZES[found[2]])


def bit_rate(value: object) -> float:
    """ "64kbit" as bits per second."""
    return float(parse_rate(value))


def per_second(value: object) -> float:
    """ "200/s", "600/min" or 200 as 200.0."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    found = (
        re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(?:/\s*(s|min))?\s*", value)
        if isinstance(value, str)
        else None
    )
    if found is None:
        raise ValueError("takes so many in a second, such as 200 or 200/s")
    return float(found[1]) / (60 if found[2] == "min" else 1)


Kind = Literal["size", "time"]
_READ: Final[dict[Kind, Callable[[object], float]]] = {"size": size, "time": seconds}


class Distribution:
    """What a size or a time is drawn from.

    A plain quantity is always the same. Otherwise `uniform(LOW, HIGH)`, `exp(MEAN)`,
    `normal(MEAN, DEVIATION)`, `lognormal(MEDIAN, SIGMA)`, `pareto(LEAST, ALPHA)`, or
    `choice(VALUE: WEIGHT, ...)`; `... max VALUE` after any of them cuts off the tail.
    """

    __slots__ = ("draw", "text")

    def __init__(self, text: str, draw: Callable[[Random], float]) -> None:
        self.text = text
        self.draw = draw

    def __repr__(self) -> str:
        return f"Distribution({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Distribution) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    @classmethod
    def parse(cls, value: object, kind: Kind) -> "Distribution":
        """ValueError says what is wrong with the text."""
        read = _READ[kind]
        text = str(value).strip()
        most: float | None = None
        body = text
        if found := re.fullmatch(r"(.*\))\s*max\s+(\S+)", text):
            body, most = found[1], read(found[2])
        call = re.fullmatch(r"([a-z]+)\s*\((.*)\)", body)
        if call is None:
            fixed = read(value)
            return cls(text, lambda _: fixed)
        make = _SHAPES.get(call[1])
        if make is None:
            raise ValueError(f"no distribution {call[1]!r}: it takes {', '.join(_SHAPES)}")
        words = [w.strip() for w in call[2].split(",")] if call[2].strip() else []
        draw = make(words, read)
        if most is not None:
            limit = most
            return cls(text, lambda r: min(max(0.0, draw(r)), limit))
        return cls(text, lambda r: max(0.0, draw(r)))


_Read = Callable[[object], float]
_Draw = Callable[[Random], float]


def _take(name: str, words: list[str], count: int) -> None:
    if len(words) != count:
        raise ValueError(f"{name} takes {count} argument{'s' * (count > 1)}, not {len(words)}")


def _plain(name: str, word: str, low: float = 1e-9, high: float = 1e9) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{name}: {word!r} is no number") from None
    if value <= 0:
        raise ValueError(f"{name}: {word} is not greater than 0")
    if not low <= value <= high:  # beyond these a draw is larger than a float
        raise ValueError(f"{name}: {word} is not from {low:g} to {high:g}")
    return value


def _uniform(words: list[str], read: _Read) -> _Draw:
    _take("uniform", words, 2)
    low, high = read(words[0]), read(words[1])
    if low > high:
        raise ValueError(f"uniform: {words[0]} is more than {words[1]}")
    return lambda r: r.uniform(low, high)


def _exp(words: list[str], read: _Read) -> _Draw:
    _take("exp", words, 1)
    mean = read(words[0])
    if not mean:
        raise ValueError("exp: the mean is 0")
    return lambda r: r.expovariate(1 / mean)


def _normal(words: list[str], read: _Read) -> _Draw:
    _take("normal", words, 2)
    mean, deviation = read(words[0]), read(words[1])
    return lambda r: r.gauss(mean, deviation)


def _lognormal(words: list[str], read: _Read) -> _Draw:
    _take("lognormal", words, 2)
    median, sigma = read(words[0]), _plain("lognormal", words[1], high=50)
    return lambda r: median * r.lognormvariate(0, sigma)


def _pareto(words: list[str], read: _Read) -> _Draw:
    _take("pareto", words, 2)
    least, alpha = read(words[0]), _plain("pareto", words[1], low=0.1)
    return lambda r: least * r.paretovariate(alpha)


def _choice(words: list[str], read: _Read) -> _Draw:
    values: list[float] = []
    weights: list[float] = []
    for word in words:
        value, colon, weight = word.partition(":")
        values.append(read(value.strip()))
        weights.append(_plain("choice", weight.strip()) if colon else 1.0)
    if not values:
        raise ValueError("choice takes at least one value")
    return lambda r: r.choices(values, weights)[0]


_SHAPES: Final[dict[str, Callable[[list[str], _Read], _Draw]]] = {
    "uniform": _uniform,
    "exp": _exp,
    "normal": _normal,
    "lognormal": _lognormal,
    "pareto": _pareto,
    "choice": _choice,
}


# ---- for people ------------------------------------------------------------------------------


def say_time(value: float) -> str:
    """0.0123 as "12.3 ms"."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms" if value < 0.9995 else "1 s"
    return f"{value:.3g} s" if value < 999.5 else f"{value:.0f} s"


def say_size(value: float) -> str:
    """1536 as "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{value:.4g} {unit}"
        value /= 1024
    raise AssertionError


def say_bits(value: float) -> str:
    """12e6 as "12 Mbit/s"."""
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} Gbit/s"
