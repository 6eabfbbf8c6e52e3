# SPDX-License-Identifier: MIT
import os

import pytest

from skbus.stack.placement import Placement, Usage, read_usage, set_processors


def run(place: Placement, seconds: float, ran: float, waited: float, start: float = 0.0) -> float:
    """Time passes in which one process runs and waits by these rates; when it is then."""
    now = start
    while now < start + seconds:
        now += 0.1
        place.look(now, {1: Usage(ran * now, waited * now)})
    return now


def test_where_there_is_little_to_do_all_stay_on_one_processor() -> None:
    place = Placement("auto", [0, 1, 2])
    assert place.processors() == [2]
    run(place, 20, ran=0.9, waited=0.05)
    assert place.processors() == [2]
    assert place.switches == 0


def test_layers_that_wait_for_each_other_are_spread_and_brought_together_again() -> None:
    place = Placement("auto", [0, 1])
    now = run(place, 1, ran=0.9, waited=1.5)
    assert place.processors() == [0, 1]
    now = run(place, 5, ran=1.6, waited=0.1, start=now)
    assert place.processors() == [0, 1]
    run(place, 1.5, ran=0.5, waited=0.1, start=now)
    assert place.processors() == [0, 1]  # not yet: it was wrong once
    run(place, 1.0, ran=0.5, waited=0.1, start=now + 1.5)
    assert place.processors() == [1]


def test_each_wrong_guess_makes_the_next_one_later() -> None:
    place = Placement("auto", [0, 1])
    now = run(place, 60, ran=0.5, waited=1.2)
    assert 5 < place.switches < 14
    place.switches = 0
    run(place, 60, ran=0.5, waited=1.2, start=now)
    assert place.switches <= 3


def test_one_and_spread_are_for_good() -> None:
    one, spread = Placement("one", [0, 1]), Placement("spread", [0, 1])
    assert (one.processors(), one.timeout()) == ([1], None)
    assert (spread.processors(), spread.timeout()) == ([0, 1], None)
    assert Placement("auto", [3]).timeout() is None


def test_a_process_that_has_just_come_does_not_count_with_its_past() -> None:
    place = Placement("auto", [0, 1])
    place.look(1.0, {1: Usage(5, 0)})
    assert not place.look(1.1, {1: Usage(5.01, 0), 2: Usage(100, 100)})


def test_when_idle_it_looks_seldom() -> None:
    place = Placement("auto", [0, 1])
    assert place.timeout() == pytest.approx(0.1)
    run(place, 1, ran=0.0, waited=0.0)
    assert place.timeout() == pytest.approx(1.0)


def test_usage_and_processors_of_a_real_process() -> None:
    usage = read_usage(os.getpid())
    assert usage is not None
    assert usage.ran > 0
    assert read_usage(2**22 + 1) is None
    set_processors(2**22 + 1, [0])
    pid = os.fork()
    if not pid:
        os.read(0, 0)
        import time

        time.sleep(60)
        os._exit(0)
    try:
        first = min(os.sched_getaffinity(0))
        set_processors(pid, [first])
        assert os.sched_getaffinity(pid) == {first}
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
