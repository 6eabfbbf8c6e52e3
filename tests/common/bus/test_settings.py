# SPDX-License-Identifier: MIT
"""Settings that outlive the process in which they were made."""

from pathlib import Path

import pytest

from skbus.bus import settings
from skbus.bus.rundir import RunDir
from skbus.bus.settings import Settings


def test_the_last_of_each_kind_in_their_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    first = Settings(run, "tcp")
    assert first.load() == []
    first.note("sysctl_set", ["net.ipv4.tcp_sack", 0])
    first.note("log_level", "debug")
    first.note("sysctl_set", ["net.ipv4.tcp_rmem", [4096, 8192, 16384]])
    first.note("sysctl_set", ["net.ipv4.tcp_sack", 1])
    again = Settings(run, "tcp")
    expected = [
        ("log_level", "debug"),
        ("sysctl_set", ["net.ipv4.tcp_rmem", [4096, 8192, 16384]]),
        ("sysctl_set", ["net.ipv4.tcp_sack", 1]),
    ]
    assert again.load() == expected
    again.note("log_level", "info")
    assert Settings(run, "tcp").load() == [*expected[1:], ("log_level", "info")]
    assert Settings(run, "udp").load() == []


def test_a_new_stack_begins_without(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    Settings(run, "tcp").note("log_level", "debug")
    (run.journal_dir / "tcp.epoch").write_text("1")
    settings.clear(run)
    assert Settings(run, "tcp").load() == []
    assert [p.name for p in run.journal_dir.iterdir()] == ["tcp.epoch"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}"])
def test_a_file_that_is_not_ours_is_nothing(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path / "r").create()
    run.write_text("journal/tcp.settings", text)
    assert Settings(run, "tcp").load() == []
