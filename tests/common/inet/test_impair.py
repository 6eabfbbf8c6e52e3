# SPDX-License-Identifier: MIT
import pytest

from skbus.core.net import MSEC, SEC
from skbus.inet.impair import Impairment

FRAME = bytes(range(100))


def run(imp: Impairment, n: int, gap: int = 0) -> list[list[tuple[int, bytes]]]:
    return [imp.admit(i * gap, bytes([i & 255]) + FRAME) for i in range(n)]


def test_nothing_is_done_by_default() -> None:
    imp = Impairment()
    assert not imp
    out = imp.admit(5, FRAME)
    assert out == [(5, FRAME)]
    assert out[0][1] is FRAME


def test_the_same_seed_gives_the_same_outcome() -> None:
    def make(seed: int, direction: str = "") -> list[list[tuple[int, bytes]]]:
        imp = Impairment(
            loss=0.1,
            delay=20 * MSEC,
            jitter=MSEC,
            reorder=0.1,
            dup=0.1,
            corrupt=0.1,
            rate=10**8,
            seed=seed,
            direction=direction,
        )
        return run(imp, 200, 1000)

    assert make(7) == make(7)
    assert make(7) != make(8)
    assert make(7, "rx") != make(7, "tx")


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_shares_are_kept(share: float) -> None:
    lossy = Impairment(loss=share, seed=1)
    lost = sum(not out for out in run(lossy, 4000))
    assert lossy.lost == lost
    assert lost / 4000 == pytest.approx(share, abs=0.03)
    doubling = Impairment(dup=share, seed=1)
    out = run(doubling, 4000)
    assert sum(len(o) == 2 for o in out) == doubling.duplicated
    assert doubling.duplicated / 4000 == pytest.approx(share, abs=0.03)
    damaging = Impairment(corrupt=share, seed=1)
    run(damaging, 4000)
    assert damaging.corrupted / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3])
def test_trains_that_pass_whole_lose_what_single_frames_would(share: float) -> None:
    single, trains = (Impairment(loss=share, seed=3) for _ in range(2))
    wanted = [bool(single.admit(0, b"x")) for _ in range(9000)]
    got: list[bool] = []
    whole = 0
    for _ in range(200):
        if trains.spares(45):
            whole += 1
            got += [True] * 45
        else:
            got += [bool(trains.admit(0, b"x")) for _ in range(45)]
    assert got == wanted
    assert trains.lost == single.lost == wanted.count(False)
    assert (whole > 0) == (share < 0.3)


def test_no_train_passes_whole_where_more_than_loss_is_asked_for() -> None:
    assert not Impairment().spares(1)
    assert not Impairment(loss=0.1, delay=5).spares(1)
    assert not Impairment(loss=0.1, rate=10**9).spares(1)


def test_everything_and_nothing_lost() -> None:
    assert run(Impairment(loss=1.0), 50) == [[]] * 50
    assert all(run(Impairment(loss=0.0), 50))


def test_corruption_flips_one_bit() -> None:
    imp = Impairment(corrupt=1.0, seed=3)
    for _ in range(50):
        ((_, got),) = imp.admit(0, FRAME)
        assert len(got) == len(FRAME)
        assert sum((a ^ b).bit_count() for a, b in zip(got, FRAME, strict=True)) == 1
    assert imp.admit(0, b"") == [(0, b"")]


def test_delay_and_jitter() -> None:
    assert Impairment(delay=20 * MSEC).admit(7, FRAME) == [(20 * MSEC + 7, FRAME)]
    times = [o[0][0] for o in run(Impairment(delay=20 * MSEC, jitter=5 * MSEC, seed=1), 500)]
    assert 15 * MSEC <= min(times) < 16 * MSEC
    assert 24 * MSEC < max(times) <= 25 * MSEC
    times = [o[0][0] for o in run(Impairment(jitter=MSEC, seed=1), 500)]
    assert min(times) >= 0


def test_reordered_frames_skip_the_delay() -> None:
    imp = Impairment(delay=20 * MSEC, reorder=0.25, seed=1)
    times = [o[0][0] for o in run(imp, 400)]
    assert set(times) == {0, 20 * MSEC}
    assert times.count(0) == imp.reordered
    assert 60 < imp.reordered < 140


def test_without_a_delay_reordered_frames_are_overtaken() -> None:
    imp = Impairment(reorder=0.1, seed=1)
    out = [o[0] for o in run(imp, 300, gap=20_000)]
    arrival = sorted(range(300), key=lambda i: out[i][0])
    assert arrival != list(range(300))
    held = [when - i * 20_000 for i, (when, _) in enumerate(out) if when != i * 20_000]
    assert len(held) == imp.reordered
    assert min(held) >= 100_000
    assert max(held) <= MSEC


def test_rate_spaces_frames_and_its_queue_is_bounded() -> None:
    imp = Impairment(rate=8_000_000, limit=10)  # one byte a microsecond
    out = run(imp, 20)
    assert [o[0][0] for o in out[:10]] == [(i + 1) * 101_000 for i in range(10)]
    assert out[10:] == [[]] * 10
    assert imp.overflowed == 10
    # when the queue has drained, the link is free again at once
    assert imp.admit(SEC, FRAME) == [(SEC + 100_000, FRAME)]


def test_parse() -> None:
    imp = Impairment.parse(
        "loss 5%, delay=20ms jitter 1ms reorder 10% dup 1% corrupt 0.1% "
        "rate 100mbit limit 50 seed 7",
        "tx",
    )
    assert (imp.loss, imp.delay, imp.jitter, imp.rate) == (0.05, 20 * MSEC, MSEC, 10**8)
    assert (imp.reorder, imp.dup, imp.corrupt, imp.limit) == (0.1, 0.01, 0.001, 50)
    assert not Impairment.parse("")


@pytest.mark.parametrize(
    ("text", "word"),
    [("loss", "pair"), ("los 5%", "'los'"), ("loss 105%", "loss '105%'"), ("delay 20", "unit")],
)
def test_parse_errors_name_the_word(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Impairment.parse(text)


@pytest.mark.parametrize("bad", [{"loss": 1.5}, {"dup": -0.1}, {"delay": -1}, {"limit": 0}])
def test_bad_values_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"share|negative"):
        Impairment(**bad)  # type: ignore[arg-type]


def test_status_counts() -> None:
    imp = Impairment(loss=0.5, dup=0.5, seed=2)
    run(imp, 100)
    assert imp.status() == {
        "lost": imp.lost,
        "overflowed": 0,
        "duplicated": imp.duplicated,
        "corrupted": 0,
        "reordered": 0,
        "marked": 0,
    }
