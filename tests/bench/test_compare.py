# SPDX-License-Identifier: MIT
"""`make bench-compare`: its statistics, its table, its errors, and a tiny run."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPARE = HERE / "compare.py"
LAB = Path(sys.executable).with_name("skbus")

sys.path.insert(0, str(HERE))
try:
    import paired
    from paired import Pair, Row
finally:
    sys.path.remove(str(HERE))


# ---- statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042)],
)
def test_the_quantiles_are_those_of_the_tables(freedom: int, t: float) -> None:
    assert paired.t_quantile(freedom) == pytest.approx(t, abs=5e-4)


def test_equal_pairs_have_a_ratio_without_spread() -> None:
    found = paired.ratio_of([(10.0, 20.0), (100.0, 200.0), (1.0, 2.0)])
    assert found.ratio == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0)
    assert found.high == pytest.approx(2.0)


def test_the_interval_is_that_of_the_logarithms() -> None:
    """Ratios e^-1, 1, e^1: mean 0, deviation 1, n 3, t 4.303."""
    found = paired.ratio_of([(1.0, math.exp(-1)), (1.0, 1.0), (1.0, math.e)])
    reach = 4.30265 / math.sqrt(3)
    assert found.ratio == pytest.approx(1.0)
    assert found.low == pytest.approx(math.exp(-reach), rel=1e-4)
    assert found.high == pytest.approx(math.exp(reach), rel=1e-4)


def test_one_pair_has_no_interval_and_no_pair_no_ratio() -> None:
    assert paired.ratio_of([(2.0, 3.0)]) == (1.5, None, None, 1)
    with pytest.raises(ValueError, match="no pairs"):
        paired.ratio_of([])
    with pytest.raises(ValueError, match="positive"):
        paired.ratio_of([(0.0, 1.0)])


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    from random import Random

    rand = Random(1)
    held = 0
    for _ in range(2000):
        pairs = [(1.0, 1.3 * math.exp(rand.gauss(0, 0.2))) for _ in range(5)]
        found = paired.ratio_of(pairs)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.3 <= found.high
    assert 0.935 <= held / 2000 <= 0.965


# ---- table -----------------------------------------------------------------------------------


def row(name: str, pairs: list[Pair], build: str = "interpreted", is_time: bool = False) -> Row:
    return Row(build, name, f"the work {name}", is_time, pairs, [])


def test_a_time_that_halves_is_twice_as_fast() -> None:
    found = paired.speed(row("help", [Pair(0.4, 0.2), Pair(0.2, 0.1)], is_time=True))
    assert found is not None
    assert found.ratio == pytest.approx(2.0)


def test_processor_time_is_compared_only_where_it_is_known() -> None:
    known = row("rr", [Pair(1, 1, 0.5, 0.25), Pair(1, 1), Pair(1, 1, 0.0, 0.1)])
    found = paired.cost(known)
    assert found is not None
    assert found.ratio == pytest.approx(0.5)
    assert found.pairs == 1
    assert paired.cost(row("rr", [Pair(1, 1)])) is None


def test_the_table_has_80_columns_and_says_what_failed() -> None:
    rows = [
        row("rr", [Pair(12_345_678.0, 1_234_567_890.0, 1e-3, 1e-4)] * 3),
        row("crr", []),
        row("bulk_in", [Pair(0.001, 0.002)], build="compiled"),
        row("help", [Pair(0.3, 0.14)] * 2, build="compiled", is_time=True),
    ]
    rows[1].failures.append("x" * 200)
    text = paired.table(
        rows, "0123456789", "abcdef123", {("interpreted", "rr"): paired.Target(1.6, 2.5, False)}
    )
    assert max(map(len, text.splitlines())) <= paired.WIDTH
    assert "1.6;2.5 aim" in text
    assert "1 of 1 pairs failed: xxx" in text
    assert "0123456" in text
    assert "2.00 x" in text
    lines = text.splitlines()
    assert lines.index("interpreted") < lines.index("compiled")


def test_our_targets_can_be_read_and_judged() -> None:
    targets = paired.read_targets(tomllib.loads((HERE / "targets.toml").read_text()))
    assert targets["compiled", "rr"] == (2.5, 5.0, False)
    assert targets["", "help"] == (0.15, 0.075, True)
    for factor, told in ((1.0, "no"), (1.6, "yes"), (2.6, "aim")):
        found = row("rr", [Pair(100.0, 100.0 * factor)])
        target = paired.target_of(found, targets)
        assert target is not None
        assert paired.reached(found, target) == told
    for seconds, told in ((0.2, "no"), (0.1, "yes"), (0.07, "aim")):
        found = row("help", [Pair(0.3, seconds)], is_time=True)
        target = paired.target_of(found, targets)
        assert target is not None
        assert paired.reached(found, target) == told
    assert paired.reached(row("rr", []), targets["compiled", "rr"]) == "?"


@pytest.mark.parametrize("text", ["rr = 3", "rr = [1]", 'rr = [1, "x"]', "rr = [0, 1]"])
def test_a_target_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="rr: not"):
        paired.read_targets(tomllib.loads(f"[base.compiled]\n{text}"))


# ---- the command -----------------------------------------------------------------------------


def compare(*arguments: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(COMPARE), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "BASE=nowhere: there is no such commit here"),
        (["--", "--help"], "BASE='--help' is no name of a commit"),
        (["HEAD", "--pairs", "0"], "must be positive"),
        (["HEAD", "--only", "bulk"], "bulk: not one of"),
        (["HEAD", "--subjects", "pmd"], "pmd: not one of"),
        (["HEAD", "--targets", "/nonexistent"], "--targets /nonexistent"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], told: str) -> None:
    done = compare(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def broken_commit() -> Iterator[str]:
    """A commit without our packages, in nobody's history."""

    def git(*arguments: str, text: str = "") -> str:
        return subprocess.run(
            ["git", "-C", str(HERE), *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **{f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER")
                                  for what in ("NAME", "EMAIL")}},
        ).stdout.strip()  # fmt: skip

    blob = git("hash-object", "-w", "--stdin", text='[build-system]\nrequires = ["nothing"\n')
    tree = git("mktree", text=f"100644 blob {blob}\tpyproject.toml\n")
    commit = git("commit-tree", tree, "-m", "a tree that does not build")
    yield commit
    sys.path.insert(0, str(HERE))
    try:
        import shutil

        from trees import CACHE
    finally:
        sys.path.remove(str(HERE))
    shutil.rmtree(CACHE / commit[:12], ignore_errors=True)


def test_a_commit_that_does_not_build_says_why(broken_commit: str) -> None:
    done = compare(broken_commit, "--subjects", "interpreted")
    assert done.returncode == 2
    assert f"{broken_commit[:9]} does not build (interpreted)" in done.stderr
    assert "toml" in done.stderr.lower()
    assert 'Traceback (most recent call last):\n  File "/' not in done.stderr.partition("==>")[0]


TINY = ("HEAD", "--subjects", "interpreted", "--only", "rr,udp_in", "--seconds", "0.2")


def labs() -> set[str]:
    """The names of our benches' labs that are there."""
    text = subprocess.run([LAB, "lab", "list"], capture_output=True, text=True, check=True).stdout
    return {word for word in text.split() if word.startswith("bench")}


@pytest.mark.lab
@pytest.mark.slow
def test_a_state_beside_itself(tmp_path: Path) -> None:
    done = compare(*TINY, "--pairs", "2", "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert json.loads(next(tmp_path.glob("*.json")).read_text()) == found
    assert [r["name"] for r in found["rows"]] == ["rr", "udp_in"]
    for one in found["rows"]:
        assert len(one["pairs"]) == 2
        assert one["failures"] == []
        assert one["faster"]["low"] <= one["faster"]["ratio"] <= one["faster"]["high"]
        assert 0.05 < one["faster"]["ratio"] < 20
    assert found["base"]["commit"] == found["here"]["commit"]


@pytest.mark.lab
@pytest.mark.slow
def test_starts_are_compared(tmp_path: Path) -> None:
    """A layer that dies, the command, and a lab: in pairs, as rounds are."""
    chosen = ("HEAD", "--subjects", "interpreted", "--only", "help,lab_up,rebirth", "--pairs", "1")
    done = compare(*chosen, "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(r["name"], r["kind"]) for r in rows] == [
        ("help", "seconds"), ("lab_up", "seconds"), ("rebirth", "seconds"),
    ]  # fmt: skip
    assert all(0 < p[side] < 60 for r in rows for p in r["pairs"] for side in ("base", "here"))


@pytest.mark.lab
@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    before = labs()
    with subprocess.Popen(
        [sys.executable, str(COMPARE), *TINY, "--pairs", "500", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 200
        assert process.stderr is not None
        while "pair 2" not in (line := process.stderr.readline()):
            assert line, "it ended"
            assert time.monotonic() < deadline
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "1-byte round trips" in out
    assert labs() <= before
