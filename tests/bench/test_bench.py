# SPDX-License-Identifier: MIT
"""The benchmark itself: its rounds on Linux alone, and its tables of figures."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

BENCH = Path(__file__).with_name("bench.py")


def run(*arguments: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )


@pytest.mark.lab
def test_every_round_runs_on_linux(tmp_path: Path) -> None:
    done = run(
        "--subjects", "linux", "--reps", "2", "--seconds", "0.25", "--no-plot",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert set(figures["workloads"]) == {
        "bulk_in", "bulk_out", "bulk_out_big", "rr", "crr", "udp_in", "udp_out", "http"
    }  # fmt: skip
    for found in figures["workloads"].values():
        rounds = found["subjects"]["linux"]["rounds"]
        assert len(rounds) == 2
        rates = sorted(r["rate"] for r in rounds)
        assert found["subjects"]["linux"]["median"] == pytest.approx(sum(rates) / 2)
        assert rates[0] > 0
    assert "connect-ask-close" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "bulk"], "bulk: not one of"),
        (["--subjects", "bsd"], "bsd: not one of"),
        (["--reps", "0"], "must be positive"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert told in done.stderr


REPORT = """
import json, sys
import report
from subjects import Round
rounds = {
    "bulk_in": {
        "iperf3": [Round(30_000.0, 1.0, {}), Round(10_000.0, 1.0, {}), Round(20_000.0, 1.0, {})],
        "linux": [Round(40_000.0, 1.0, {})],
        "skbus": [Round(900.0, 2.0, {"cpu_seconds": {"tcp": 1.0}}), "no answer"],
        "pmd": [Round(45.0, 1.0, {})],
    },
    "rr": {"linux": [Round(100.0, 1.0, {})], "skbus": [Round(50.0, 1.0, {})]},
}
print(json.dumps([
    report.ratios(rounds, "bulk_in"), report.ratios(rounds, "rr"), report.below_floor(rounds),
]))
"""


def test_ratios_are_of_medians_and_the_floor_is_kept() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        capture_output=True,
        text=True,
        check=True,
        cwd=BENCH.parent,
    )
    bulk, rr, under = json.loads(done.stdout)
    assert bulk == [pytest.approx(900 / 20_000), pytest.approx(20.0)]
    assert rr == [pytest.approx(0.5), None]
    assert under == ["bulk_in"]


TABLE = """
import report
from rich.console import Console
from subjects import Round, WORKLOADS
rounds = {
    name: {s: [Round(123_456_789.0, 1.0, {}), Round(123_456_789.0, 1.0, {}), "no answer"]
           for s in ("iperf3", "linux", "skbus", "pmd", "compiled")}
    for name in WORKLOADS
}
report.print_table(Console(), report.table(rounds, 5, 3))
"""


@pytest.mark.parametrize("columns", [40, 80, 400, None])
def test_no_figure_is_cut_on_whatever_terminal_or_in_a_file(columns: int | None) -> None:
    """None: into a pipe, for which rich takes 80 columns."""
    env = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
    master, slave = pty.openpty()
    if columns is not None:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", TABLE],
        cwd=BENCH.parent,
        env=env,
        stdout=subprocess.PIPE if columns is None else slave,
    ) as process:
        os.close(slave)
        out = b""
        if columns is None:
            out, _ = process.communicate()
        else:
            try:
                while more := os.read(master, 1 << 16):
                    out += more
            except OSError:
                pass  # EIO: the other end is closed
    os.close(master)
    assert process.returncode == 0
    text = out.decode()
    assert "\u2026" not in text
    assert text.count("123,456,789") == 5 * 8
    assert text.count("1/3 failed") == 5 * 8
    if columns in (40, 80):
        assert re.search(r"  pmd-pytcp( [0-9.]+)?: 123,456,789 ± 0% 1/3 failed", text)


def test_the_tables_of_a_page_become_panels() -> None:
    sys.path.insert(0, str(BENCH.parent))
    try:
        from growth import panels
    finally:
        sys.path.remove(str(BENCH.parent))
    loss, idle = panels(
        "| loss each way | bulk in, Mbit/s | bulk out, Mbit/s |\n|--:|--:|--:|\n"
        "| 0% | 3,867 | 2,416 |\n| 1% | failed: no | 61 |\n\n"
        "| what | slowest |\n|---|---|\n| bulk | nic |\n\n"
        "| idle | tcp | bulk in, Mbit/s |\n|--:|--:|--:|\n| 10,000 | 5 | 7 |"
    )
    assert loss.values == ["0%", "1%"]
    assert loss.lines == {"bulk in, Mbit/s": [3867, None], "bulk out, Mbit/s": [2416, 61]}
    assert (idle.axis, idle.lines) == ("idle", {"bulk in, Mbit/s": [7]})
