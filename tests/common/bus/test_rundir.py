# SPDX-License-Identifier: MIT
"""The run directory: its places, its mode, its refusals."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from skbus.bus import private, rundir
from skbus.bus.rundir import RunDir, RunDirError

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a second user")
STRANGER = 54321


def as_stranger(what: Callable[[], object]) -> str:
    """Do something as another user; what it raised, if it did."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = ""
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            what()
        except OSError as e:
            said = type(e).__name__
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as out:
        said = out.read()
    os.waitpid(pid, 0)
    return said


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


def test_default_of_an_ordinary_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKBUS_DIR", raising=False)
    monkeypatch.setattr(rundir, "_ROOTS", tmp_path / "none")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert RunDir().path == tmp_path / "skbus" / "default"
    # It is to be the user's alone (XDG Base Directory Specification).
    tmp_path.chmod(0o755)
    assert RunDir().path != tmp_path / "skbus" / "default"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    session = Path(f"/run/user/{os.geteuid()}")
    base = session / "skbus" if session.is_dir() else Path(f"/dev/shm/skbus-{os.geteuid()}")
    assert RunDir().path == base / "default"


def test_default_of_whoever_owns_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """root's is where only root can make something: whatever XDG_RUNTIME_DIR is."""
    monkeypatch.delenv("SKBUS_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(rundir, "_ROOTS", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    mine = tmp_path.stat().st_uid == 0
    assert (RunDir().path == tmp_path / "skbus" / "default") == mine
    tmp_path.chmod(0o777)
    assert RunDir().path != tmp_path / "skbus" / "default"


def test_too_long_for_a_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"too long for a Unix socket.*SKBUS_DIR"):
        RunDir(tmp_path / ("x" * 100))


def test_missing_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"is the stack up\?.*SKBUS_DIR"):
        RunDir(tmp_path / "nowhere").require()


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "r").symlink_to(tmp_path / "real")
    with pytest.raises(RunDirError, match=r"/r is not a directory; choose another"):
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


# ---- somebody else was there first -------------------------------------------------------------


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A place such as /tmp or /dev/shm: everybody may make something in it."""
    tmp_path.chmod(0o755)
    place = tmp_path / "shm"
    place.mkdir()
    place.chmod(0o1777)
    return place


@AS_ROOT
@pytest.mark.parametrize("deep", ["", "default"])
def test_a_strangers_directory_is_refused_to_root_too(public: Path, deep: str) -> None:
    base = public / "skbus-0"
    assert as_stranger(lambda: base.mkdir(mode=0o777)) == ""
    run = RunDir(base / deep)
    for use in (run.create, run.require):
        with pytest.raises(RunDirError, match=r"belongs to user 54321.*SKBUS_DIR|no run directory"):
            use()
    assert list(base.iterdir()) == []


@AS_ROOT
def test_what_a_stranger_has_put_into_our_directory_is_refused(public: Path) -> None:
    """It was open to all when it was made."""
    path = public / "r"
    path.mkdir()
    path.chmod(0o777)
    assert as_stranger(lambda: (path / "pool").mkdir()) == ""
    assert as_stranger(lambda: (path / "config.json").write_text("{}")) == ""
    with pytest.raises(RunDirError, match=r"pool belongs to user 54321|config.json belongs to"):
        RunDir(path).create()


@pytest.mark.parametrize("name", ["config.json", "lock", "log"])
def test_a_link_in_it_is_refused(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path / "r").create()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if name == "log":
        run.log_dir.rmdir()
    (run.path / name).symlink_to(victim)
    with pytest.raises(RunDirError, match=rf"{name} is a link"):
        run.create()
    with pytest.raises(OSError, match=r"symbolic links|is not a directory"):
        run.open("log/tcp.err" if name == "log" else name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert victim.read_text() == "precious"


def test_writing_does_not_follow_a_link_but_replaces_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run.path / "config.json").symlink_to(victim)
    run.write_text("config.json", "new")
    assert (victim.read_text(), run.read_text("config.json")) == ("precious", "new")
    assert [p.name for p in run.path.iterdir() if p.is_file()] == ["config.json"]
    assert stat.S_IMODE((run.path / "config.json").stat().st_mode) == 0o600


def test_a_part_of_the_path_that_others_can_replace(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a").chmod(0o777)
    run = RunDir(tmp_path / "a" / "b" / "r")
    with pytest.raises(RunDirError, match=r"/a has mode 0777: others can replace.*SKBUS_DIR"):
        run.create()
    (tmp_path / "a").chmod(0o1777)  # as /tmp: they can only replace what is theirs
    run.create()
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    RunDir(tmp_path / "link" / "r").require()
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(RunDirError, match=r"/a has mode 0777: others can replace"):
        RunDir(tmp_path / "link" / "r").require()


def test_open_to_others_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    run.path.chmod(0o750)
    with pytest.raises(RunDirError, match=r"has mode 0750: it is open to others \(chmod 700\)"):
        run.require()
    run.create()
    assert run.require() is run


@AS_ROOT
def test_a_stranger_gets_nowhere_in_ours(public: Path) -> None:
    run = RunDir(public / "r").create()
    run.write_text("config.json", "{}")
    for attempt in (
        lambda: os.listdir(run.path),
        lambda: (run.path / "config.json").read_text(),
        lambda: (run.path / "x").touch(),
        lambda: run.path.rename(public / "other"),
        lambda: run.path.rmdir(),
    ):
        assert as_stranger(attempt) == "PermissionError"


def test_a_pool_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/run is no tmpfs in most containers: then the pool is in /dev/shm, under a random name."""
    shm = tmp_path / "shm"
    shm.mkdir()
    monkeypatch.setattr(rundir, "_bases", lambda: [tmp_path / "base"])
    monkeypatch.setattr(rundir, "_SHM", shm)
    monkeypatch.setattr(private, "on_tmpfs", lambda path: path == shm)
    run = RunDir(tmp_path / "base" / "r").create()
    (place,) = shm.iterdir()
    assert Path(os.readlink(run.pool_dir)) == place
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    run.create()
    assert list(shm.iterdir()) == [place]
    (place / "00000001").touch()
    run.remove()
    assert list(shm.iterdir()) == []
    assert not run.path.exists()
    # elsewhere there is no more room than here
    monkeypatch.setattr(private, "free_bytes", lambda _: 1 << 20)
    assert not run.create().pool_dir.is_symlink()


def test_all_that_is_left_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_bases", lambda: [tmp_path / "a", tmp_path / "none"])
    run = RunDir(tmp_path / "a" / "r").create()
    (tmp_path / "a" / "other").mkdir()
    assert [found.path for found in rundir.find_all()] == [run.path]
    run.remove()
    assert rundir.find_all() == []


def test_a_reserved_file_is_whole_at_any_moment(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    file = private.ReservedFile(tmp_path / "f", 4096)
    for text in (b"first", b"second", b"third"):
        file.write(text)
        assert (tmp_path / "f").read_bytes().rstrip(b"\n") == text
    with pytest.raises(OSError, match="4097 bytes, 4096 are reserved"):
        file.write(bytes(4097))
    file.close()
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
