# SPDX-License-Identifier: MIT
import pytest

from skbus.load.assertion import Assertion, Unit

FLOWS = frozenset({"web", "bulk"})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("p99 < 50 ms", (None, None, "p99", None, "<", 0.05, "time")),
        ("p99.9<=1.5s", (None, None, "p99.9", None, "<=", 1.5, "time")),
        ("errors == 0", (None, None, "errors", None, "==", 0, "count")),
        ("errors.timeout < 3", (None, None, "errors", "timeout", "<", 3, "count")),
        ("errors.HTTP 503 == 0", (None, None, "errors", "HTTP 503", "==", 0, "count")),
        ("web.errors.HTTP != 1", ("web", None, "errors", "HTTP", "!=", 1, "count")),
        ("web@hold.rate > 200/s", ("web", "hold", "rate", None, ">", 200, "rate")),
        ("@hold.p50 >= 1us", (None, "hold", "p50", None, ">=", 1e-6, "time")),
        ("web.p99.9 < 1s", ("web", None, "p99.9", None, "<", 1, "time")),
        ("web.connect.p50 < 1ms", ("web", None, "connect", "p50", "<", 0.001, "time")),
        ("error_rate < 1%", (None, None, "error_rate", None, "<", 0.01, "share")),
        ("bulk.goodput > 100 mbit/s", ("bulk", None, "goodput", None, ">", 1e8, "bits")),
        ("bytes_in > 1MiB", (None, None, "bytes_in", None, ">", 1 << 20, "size")),
        ("memory.tcp < 1 MB/min", (None, None, "memory", "tcp", "<", 1e6, "slope")),
        ("@hold.memory.tcp < 1 MB/min", (None, "hold", "memory", "tcp", "<", 1e6, "slope")),
        ("memory < -0.5KiB/min", (None, None, "memory", None, "<", -512, "slope")),
        ("drops.NO_SOCKET == 0", (None, None, "drops", "NO_SOCKET", "==", 0, "count")),
        ("cpu.nic.eth0 < 50%", (None, None, "cpu", "nic.eth0", "<", 0.5, "share")),
        ("lag < 10µs", (None, None, "lag", None, "<", 1e-5, "time")),
    ],
)
def test_parts(
    text: str, parts: tuple[str | None, str | None, str, str | None, str, float, Unit]
) -> None:
    a = Assertion.parse(text, FLOWS)
    assert (a.flow, a.phase, a.metric, a.detail, a.op, a.unit) == (*parts[:5], parts[6])
    assert a.bound == pytest.approx(parts[5])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fast enough", "takes METRIC < VALUE"),
        ("p99 = 3ms", "takes METRIC < VALUE"),
        ("speed > 3", "no metric 'speed': there are p99"),
        ("p101 < 3ms", "no metric 'p101'"),
        ("mail.p99 < 3ms", "no flow 'mail': there are bulk, web"),
        ("p99 < 3", "takes a time with its unit"),
        ("errors < few", "'few': takes a number"),
        ("error_rate < 1/2", "takes a share"),
        ("memory < 1 MB/s", "takes a growth"),
        ("web.lag < 1ms", "over the whole run"),
        ("@hold.drops == 0", "over the whole run"),
    ],
)
def test_what_is_wrong_is_said(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Assertion.parse(text, FLOWS)


@pytest.mark.parametrize(
    ("op", "outcomes"),
    [
        ("<", [True, False, False]),
        ("<=", [True, True, False]),
        ("==", [False, True, False]),
        ("!=", [True, False, True]),
        (">=", [False, True, True]),
        (">", [False, False, True]),
    ],
)
def test_operators(op: str, outcomes: list[bool]) -> None:
    a = Assertion.parse(f"errors {op} 2")
    assert [a.holds(v) for v in (1, 2, 3)] == outcomes


def test_no_value_never_holds() -> None:
    assert not Assertion.parse("p99 < 1s").holds(None)
    assert not Assertion.parse("p99 > 0s").holds(None)
    assert Assertion.parse("p99 < 1s").say(None) == "none"


def test_values_are_said_in_their_unit() -> None:
    said = {
        "p99 < 1s": (0.0123, "12.3 ms"),
        "error_rate < 1%": (0.005, "0.5 %"),
        "memory < 1MB/min": (1234567.0, "+1.235 MB/min"),
        "rate > 1/s": (99.5, "99.5/s"),
        "errors == 0": (3.0, "3"),
        "goodput > 1mbit": (2e6, "2 Mbit/s"),
        "rss < 1MiB": (2048.0, "2 KiB"),
    }
    for text, (value, want) in said.items():
        assert Assertion.parse(text).say(value) == want
