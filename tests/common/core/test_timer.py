# SPDX-License-Identifier: MIT
"""Timers: never early, late by at most the grain, cheap to move, whatever the history."""

from hypothesis import given
from hypothesis import strategies as st

from skbus.core.timer import Timer, Timers

MS = 1_000_000


class Fired:
    def __init__(self) -> None:
        self.at: list[tuple[int, str]] = []
        self.now = 0


def note(net: Fired, name: str) -> None:
    net.at.append((net.now, name))


def run_to(timers: Timers[Fired], net: Fired, end: int) -> None:
    while (when := timers.next_expiry()) is not None and when <= end:
        net.now = max(net.now, when)
        timers.run(net, net.now)
    net.now = end


def grain(distance: int) -> int:
    return max(131_072, distance // 32, 1)


@given(st.lists(st.integers(1, 10_000 * MS), min_size=1, max_size=40))
def test_all_fire_not_early_and_within_their_grain(delays: list[int]) -> None:
    timers: Timers[Fired] = Timers()
    net = Fired()
    for i, delay in enumerate(delays):
        timers.mod_timer(Timer(note, str(i)), delay, 0)
    run_to(timers, net, 40_000 * MS)
    assert sorted(int(name) for _, name in net.at) == list(range(len(delays)))
    for when, name in net.at:
        due = delays[int(name)]
        assert due <= when <= due + grain(due) + 67 * MS * (due > 2000 * MS)


@given(st.lists(st.tuples(st.integers(0, 500 * MS), st.integers(0, 3000 * MS)), max_size=60))
def test_only_the_last_deadline_counts(moves: list[tuple[int, int]]) -> None:
    timers: Timers[Fired] = Timers()
    net = Fired()
    timer: Timer[Fired] = Timer(note, "t")
    due = None
    expected = 0
    for step, delay in moves:
        run_to(timers, net, net.now + step)
        expected += due is not None and len(net.at) > expected
        due = net.now + delay
        timers.mod_timer(timer, due, net.now)
    before = len(net.at)
    run_to(timers, net, net.now + 10_000 * MS)
    assert len(net.at) - before == (1 if moves else 0)
    if due is not None:
        assert net.at[-1][0] >= due


def test_a_deleted_timer_does_not_fire_and_can_be_armed_again() -> None:
    timers: Timers[Fired] = Timers()
    net = Fired()
    timer: Timer[Fired] = Timer(note, "t")
    timers.mod_timer(timer, 5 * MS, 0)
    assert timers.del_timer(timer)
    assert not timers.del_timer(timer)
    run_to(timers, net, 10 * MS)
    assert net.at == []
    timers.mod_timer(timer, 12 * MS, net.now)
    run_to(timers, net, 20 * MS)
    assert [name for _, name in net.at] == ["t"]


def test_a_timer_that_rearms_itself_for_now_does_not_hang_the_loop() -> None:
    timers: Timers[Fired] = Timers()
    net = Fired()
    count = 0

    def again(net: Fired) -> None:
        nonlocal count
        count += 1
        if count < 5:
            timers.mod_timer(timer, net.now, net.now)

    timer: Timer[Fired] = Timer(again)
    timers.mod_timer(timer, 0, 0)
    run_to(timers, net, 100 * MS)
    assert count == 5


def test_buckets_are_shared_so_the_heap_stays_small() -> None:
    timers: Timers[Fired] = Timers()
    for i in range(100_000):
        timers.mod_timer(Timer(note, "x"), 60_000 * MS + i * 1000, 0)
    assert len(timers._heap) < 10


def test_disarmed_timers_do_not_pile_up() -> None:
    """As of system calls with a time limit of hours that return at once."""
    timers: Timers[Fired] = Timers()
    net = Fired()
    kept: Timer[Fired] = Timer(note, "kept")
    timers.mod_timer(kept, 50 * MS, 0)
    again: Timer[Fired] = Timer(note, "again")
    for i in range(100_000):
        timers.mod_timer(again, 3_600_000 * MS + i, 0)
        timers.del_timer(again)
        timer: Timer[Fired] = Timer(note, "x")
        timers.mod_timer(timer, 3_600_000 * MS + i, 0)
        assert timers.del_timer(timer)
        assert sum(map(len, timers._buckets.values())) < 3000
    timers.mod_timer(again, 60 * MS, 0)
    run_to(timers, net, 100 * MS)
    assert [name for _, name in net.at] == ["kept", "again"]


def test_timers_disarmed_while_others_fire() -> None:
    timers: Timers[Fired] = Timers()
    net = Fired()
    many: list[Timer[Fired]] = [Timer(note, "x") for _ in range(5000)]

    def disarm(net: Fired) -> None:
        for timer in many:
            timers.del_timer(timer)

    timers.mod_timer(Timer(disarm), 1 * MS, 0)
    timers.mod_timer(Timer(note, "after"), 5 * MS, 0)
    for i, timer in enumerate(many):
        timers.mod_timer(timer, (1 + i % 50) * MS, 0)
    run_to(timers, net, 100 * MS)
    assert [name for _, name in net.at if name == "after"] == ["after"]
    assert timers.next_expiry() is None
    for timer in many:
        timers.mod_timer(timer, 200 * MS, net.now)
    run_to(timers, net, 300 * MS)
    assert len([name for at, name in net.at if at >= 200 * MS]) == 5000
