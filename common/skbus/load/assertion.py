# SPDX-License-Identifier: MIT
"""What a scenario asserts: "p99 < 50 ms", "errors == 0", "web@hold.rate > 200/s".

    [FLOW][@PHASE.]METRIC[.DETAIL]  <  <=  ==  !=  >=  >  VALUE [UNIT]

Without a flow, all flows together; without a phase, the whole run. The metrics are those of
METRICS and STACK_METRICS; `skbus.load.result` knows their values. A metric that has no value in
the end (no request was answered, so there is no p99) fails its assertion.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

from skbus.load import quantity

Unit = Literal["time", "count", "share", "rate", "size", "bits", "slope"]

METRICS: Final[dict[str, Unit]] = {
    "min": "time",
    "mean": "time",
    "max": "time",
    "service": "time",
    "connect": "time",
    "requests": "count",
    "completed": "count",
    "connects": "count",
    "errors": "count",
    "error_rate": "share",
    "rate": "rate",
    "bytes_in": "size",
    "bytes_out": "size",
    "goodput": "bits",
}
"""Of a flow; besides these pNN (p50, p99, p99.9) are times, measured from the intended start.
service and connect are their 99th percentiles, or service.p50; errors.KIND counts one kind."""

STACK_METRICS: Final[dict[str, Unit]] = {
    "lag": "time",
    "retransmits": "count",
    "drops": "count",
    "restarts": "count",
    "unaccounted": "count",
    "memory": "slope",
    "rss": "size",
    "cpu": "share",
}
"""Of the run as a whole, in this order:

- how late the generator was (p99);
- ours and Linux's retransmitted segments;
- skbs dropped (drops.REASON);
- layers that came back with a new pid;
- skbs that a process has lost track of;
- growth in a minute of the process that grew most (memory.tcp), in the longest phase or in @PHASE;
- memory at the end (rss.tcp);
- the share of one processor (cpu.tcp).
"""

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}

_FORM: Final = re.compile(
    r"\s*(?:(?P<flow>[A-Za-z][\w-]*)?(?:@(?P<phase>[\w-]+))?\.)?"
    r"(?P<metric>p[0-9]{1,3}(?:\.[0-9]{1,9})?|[a-z_]+)(?:\.(?P<detail>[\w.-][\w. -]*?))?"
    r"\s*(?P<op><=|>=|==|!=|<|>)\s*(?P<value>.+?)\s*"
)


@dataclass(frozen=True, slots=True)
class Assertion:
    """One sentence, taken apart."""

    text: str
    flow: str | None
    phase: str | None
    metric: str
    detail: str | None
    op: str
    bound: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, flows: frozenset[str] = frozenset()) -> "Assertion":
        """flows: names that may stand before the metric. ValueError says what is wrong."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError("takes METRIC < VALUE, such as p99 < 50 ms or errors == 0")
        flow, metric, detail = found["flow"], found["metric"], found["detail"]
        if flow and not found["phase"] and (flow in METRICS or flow in STACK_METRICS):
            # errors.timeout: no flow of that name, but a metric with a detail
            flow, detail, metric = None, ".".join(filter(None, (metric, detail))), flow
        elif flow and not found["phase"] and re.fullmatch(r"p[0-9]{1,3}", flow):
            flow, metric = None, f"{flow}.{metric}"
        if flow is not None and flows and flow not in flows:
            raise ValueError(f"no flow {flow!r}: there are {', '.join(sorted(flows))}")
        unit = _unit(metric)
        if unit is None:
            known = "p99 (any percentile), " + ", ".join([*METRICS, *STACK_METRICS])
            raise ValueError(f"no metric {metric!r}: there are {known}")
        if metric in STACK_METRICS and (flow or (found["phase"] and metric != "memory")):
            raise ValueError(f"{metric} is measured over the whole run, not for a flow or phase")
        bound = _value(found["value"], unit)
        return cls(text, flow, found["phase"], metric, detail, found["op"], bound, unit)

    def holds(self, value: float | None) -> bool:
        """None, for no value, never holds."""
        return value is not None and _OPERATORS[self.op](value, self.bound)

    def say(self, value: float | None) -> str:
        """The value for a person, in the unit of the metric."""
        return say(value, self.unit)


def blank(value: float | None, unit: Unit) -> str:
    """The same, and nothing where there is no value."""
    return "" if value is None else say(value, unit)


def say(value: float | None, unit: Unit) -> str:
    """A metric's value for a person."""
    if value is None:
        return "none"
    if unit == "time":
        return quantity.say_time(value)
    if unit == "size":
        return quantity.say_size(value)
    if unit == "bits":
        return quantity.say_bits(value)
    if unit == "share":
        return f"{value * 100:.3g} %"
    if unit == "rate":
        return f"{value:.4g}/s"
    if unit == "slope":
        return f"{value / 1e6:+.3f} MB/min"
    return f"{value:.0f}"


def _unit(metric: str) -> Unit | None:
    if re.fullmatch(r"p[0-9]{1,3}(\.[0-9]{1,9})?", metric):
        return "time" if float(metric[1:]) <= 100 else None
    return METRICS.get(metric) or STACK_METRICS.get(metric)


def _value(text: str, unit: Unit) -> float:
    if unit == "time":
        return quantity.seconds(text.replace("µs", "us"))
    if unit == "size":
        return quantity.size(text)
    if unit == "bits":
        return quantity.bit_rate(text.removesuffix("/s"))
    if unit == "rate":
        return quantity.per_second(text)
    try:
        if unit == "share":
            return _finite(text[:-1]) / 100 if text.endswith("%") else _finite(text)
        if unit == "slope":
            number = re.fullmatch(r"(-?[\d.]+)\s*(MB|KB|kB|MiB|KiB)\s*/\s*min", text)
            if number is None:
                raise ValueError
            return _finite(number[1]) * quantity.size(f"1{number[2]}")
        return _finite(text)
    except ValueError:
        takes = {"share": "a share, such as 1%", "slope": "a growth, such as 1 MB/min"}
        raise ValueError(f"{text!r}: takes {takes.get(unit, 'a number')}") from None


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError
    return value
