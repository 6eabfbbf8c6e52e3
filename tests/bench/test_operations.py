# SPDX-License-Identifier: MIT
"""What a small message takes is held: `operations.json` has the counts, `make operations` renews
them. More is a loss that somebody must want; fewer is a gain that must not be lost again."""

import subprocess
import sys
from pathlib import Path

import pytest

from skbus.bus.version import is_compiled

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
try:
    import counting
    import operations
    from subjects import BenchError
finally:
    sys.path.remove(str(HERE))

REMEDY = "If this is wanted: make operations, and commit tests/bench/operations.json"


def told(work: str, lines: list[str]) -> str:
    return "\n".join((f"{counting.TITLES[work]}, one round:", *lines, REMEDY))


@pytest.mark.parametrize("work", counting.WORK)
def test_messages_and_wake_ups_are_as_recorded(work: str) -> None:
    recorded = operations.read_record()["simulation"][work]
    counts = counting.count(work)
    found = {p: {c: n[c] for c in operations.HELD} for p, n in counts.items() if n["wakeups"]}
    lines = operations.differences(recorded, found, counting.TIMES)
    assert not lines, told(work, lines)


@pytest.mark.parametrize("work", counting.WORK)
def test_function_calls_are_as_recorded(work: str) -> None:
    recorded = operations.read_record()["calls"]
    if is_compiled():
        pytest.skip("sys.setprofile does not see compiled functions")
    if recorded["python"] != operations.VERSION:
        pytest.skip(f"recorded for Python {recorded['python']}: other versions have other calls")
    counts = counting.count(work, calls=True)
    found = {p: {c: n[c] for c in operations.CALLS} for p, n in counts.items() if n["wakeups"]}
    lines = operations.differences(recorded[work], found, counting.TIMES)
    assert not lines, told(work, lines)


def test_counting_changes_nothing_and_is_the_same_again() -> None:
    plain = counting.count("rr")
    profiled = counting.count("rr", calls=True)
    for name, counts in plain.items():
        for column in operations.HELD:
            assert profiled[name][column] == counts[column]
    assert counting.count("rr", calls=True) == profiled


ALLOCATIONS = """
from itertools import repeat
import counting
counter = counting.allocation_counter()
if isinstance(counter, str):
    print(counter)
else:
    before = counter()
    kept = [object() for _ in repeat(None, 1000)]
    made = counter() - before
    assert 1000 <= made <= 1020, made
    found = [counting.count("rr", meter=counter) for _ in range(2)]
    assert found[0]["tcp"]["allocations"] > counting.TIMES
    print("counted")
"""


def test_allocations_are_counted_where_there_is_a_compiler() -> None:
    """In a process of its own, which then keeps its counting allocator."""
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATIONS], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "counted" or "apt-get" in done.stdout


def test_a_difference_says_what_rose_and_what_fell() -> None:
    lines = operations.differences(
        {"ip": {"messages": 40, "bytes": 100}, "udp": {"wakeups": 20}},
        {"ip": {"messages": 60, "bytes": 90}, "tcp": {"messages": 20}},
        20,
    )
    assert lines == [
        "ip: messages rose from 2 to 3",
        "ip: bytes fell from 5 to 4.5",
        "udp: wakeups fell from 1 to 0",
        "tcp: messages rose from 0 to 1",
    ]


def test_the_median_round_leaves_out_disturbed_ones() -> None:
    once = ["epoll_wait", "recvfrom", "recvfrom", "sendto"]
    names = once * 40 + ["getsockopt", "epoll_wait", *once] + once * 39
    assert operations.median_round(names, 80) == {"epoll_wait": 1, "recvfrom": 2, "sendto": 1}
    assert operations.median_round(["epoll_wait"] * 3, 80) == {}


def test_the_tables_have_80_columns() -> None:
    counts = {"nic.eth0": dict.fromkeys(counting.COLUMNS, 1_234_567)}
    lines = operations.show_simulated("crr", counts)
    lines += operations.show_system_calls("rr", {"socket": {"epoll_wait": 12, "recvfrom": 8}})
    assert max(map(len, lines)) <= operations.WIDTH


MOST = 1.4
"""What is not the same in each round may be so much more than recorded."""


@pytest.mark.lab
@pytest.mark.slow
def test_system_calls_are_as_recorded() -> None:
    """A round is measured again where it differs: the machine may have been busy."""
    if why := operations.why_no_system_calls():
        pytest.skip(why)
    recorded = operations.read_record()["system_calls"]
    lab = operations.Lab()
    try:
        lab.up()
        try:
            lab.count("ip", "rr")
        except BenchError as e:
            pytest.skip(str(e))
        for work in counting.WORK:
            for process in recorded[work]:
                _as_recorded(lab, work, process, recorded[work][process])
    finally:
        lab.down()


def _as_recorded(lab: operations.Lab, work: str, process: str, recorded: dict[str, int]) -> None:
    lines: list[str] = []
    for _ in range(3):
        found = lab.count(process, work)
        if process in operations.STEADY.get(work, ()):
            lines = operations.differences(
                operations.steady({process: recorded}), operations.steady({process: found})
            )
        else:
            lines = []
        most = sum(recorded.values()) * MOST + 1
        if sum(found.values()) > most:
            lines.append(f"{process}: {sum(found.values())} system calls, above {most:g}: {found}")
        if not lines:
            return
    raise AssertionError(told(work, lines))
