# SPDX-License-Identifier: MIT
"""The run directory: its places, its mode, its refusals."""

import os
import stat
from pathlib import Path

import pytest

from skbus.rundir import RunDir, RunDirError


def test_places(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    assert run.endpoint("nic.eth0") == f"ipc://{tmp_path}/r/nic.eth0.in"
    assert run.ctl("tcp") == f"ipc://{tmp_path}/r/tcp.ctl"
    assert run.syscall_endpoint == f"ipc://{tmp_path}/r/socket.sys"
    assert run.life == tmp_path / "r" / "socket.life"
    assert run.log_file("ip") == tmp_path / "r" / "log" / "ip.jsonl"


def test_create_is_private(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    for path in (run.path, run.pool_dir, run.log_dir, run.journal_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert RunDir(run.path).create().path == run.path


def test_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKBUS_DIR", str(tmp_path / "x"))
    assert RunDir().path == tmp_path / "x"
    assert RunDir(tmp_path / "y").path == tmp_path / "y"


def test_default_is_this_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKBUS_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert RunDir().path == tmp_path / "skbus" / "default"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert RunDir().path.parts[:3] == ("/", "dev", "shm")


def test_too_long_for_a_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"too long for a Unix socket.*SKBUS_DIR"):
        RunDir(tmp_path / ("x" * 100))


def test_missing_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"is the stack up\?.*SKBUS_DIR"):
        RunDir(tmp_path / "nowhere").require()


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "r").symlink_to(tmp_path / "real")
    with pytest.raises(RunDirError, match="not a directory"):
        RunDir(tmp_path / "r").create()


def test_processes_in_layer_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    for name in ("socket", "tcp", "nic.eth1", "ip", "nic.eth0", "udp"):
        (run.path / f"{name}.ctl").touch()
    assert run.processes() == ["nic.eth0", "nic.eth1", "ip", "tcp", "udp", "socket"]


def test_one_stack_at_a_time(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    assert not run.locked()
    fd = run.lock()
    assert run.locked()
    with pytest.raises(RunDirError, match=r"a stack runs in .* already; end it"):
        run.lock()
    os.close(fd)
    assert not run.locked()


def test_remove_takes_its_own_things_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    os.close(run.lock())
    for name in ("tcp.in", "socket.sys", "config.json", "pool/3", "mine.txt"):
        (run.path / name).touch()
    run.remove()
    assert [p.name for p in run.path.iterdir()] == ["mine.txt"]
    (run.path / "mine.txt").unlink()
    run.remove()
    assert not run.path.exists()


def test_a_directory_of_other_things_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunDirError, match="not empty, and no run directory"):
        RunDir(tmp_path).create()
