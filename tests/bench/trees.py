# SPDX-License-Identifier: MIT
"""Builds of two states of this repository, to be measured beside each other (`compare.py`).

A build lies in build/compare/KEY: `source`, and a virtual environment `interpreted` or `compiled`
with the wheel of that source. KEY is the commit. For files that are not committed it is a hash of
all files, so an edit during a run changes nothing. What is built stays there for the next run.

Every environment is made in the same way. pip installs the wheel, and a .pth file shows it the
packages of our own environment. So both sides have the same third-party packages.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / "build" / "compare"
BUILDS: Final = ("interpreted", "compiled")
SOURCES: Final = ("common", "services", "hatch_build.py", "pyproject.toml", "README.md", "LICENSE",
                  "CHANGELOG.md")  # fmt: skip
"""What a wheel is made of."""
DAY: Final = 86400.0
HERE_PREFIX: Final = "here-"

Say = Callable[[str], None]


class TreeError(Exception):
    """A commit is not there, or cannot be built; the text says why, and what to do."""


class Tree(NamedTuple):
    """One state of the repository."""

    title: str
    """for people: the commit, "+" where files were changed since"""
    key: str
    commit: str

    @property
    def path(self) -> Path:
        """Its place in the cache."""
        return CACHE / self.key

    def python(self, build: str) -> Path:
        """The interpreter of a build."""
        return self.path / build / "bin" / "python"


def _run(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command in a process group of its own, which ends with us; (status, output)."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": "", **(env or {})},
    ) as process:
        try:
            text, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, text


def _git(*arguments: str) -> str:
    try:
        status, text = _run(["git", *arguments])
    except FileNotFoundError:
        raise TreeError("git is not installed (apt-get install git)") from None
    if status:
        raise TreeError(f"git {' '.join(arguments)}: {text.strip()}")
    return text.strip()


def at_commit(name: str) -> Tree:
    """The tree of a commit, by whatever name git knows it. TreeError where it is none."""
    if name.startswith("-") or not name:
        raise TreeError(f"BASE={name!r} is no name of a commit")
    status, text = _run(["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"])
    if status:
        _git("rev-parse", "--git-dir")
        raise TreeError(
            f"BASE={name}: there is no such commit here. `git log --oneline` lists those that"
            " there are; a shallow clone gets the others by `git fetch --unshallow`"
        )
    commit = text.strip()
    return Tree(commit[:9], commit[:12], commit)


def here() -> Tree:
    """The tree as it lies here: HEAD, or a state of its own where files have been changed."""
    commit = _git("rev-parse", "HEAD")
    if not _git("status", "--porcelain", "--", *SOURCES):
        return Tree(commit[:9], commit[:12], commit)
    digest = hashlib.sha256()
    for path in sorted(_files_here()):
        digest.update(f"{path}\0".encode())
        digest.update((ROOT / path).read_bytes())
    return Tree(f"{commit[:9]}+", f"{HERE_PREFIX}{digest.hexdigest()[:12]}", commit)


def _files_here() -> list[str]:
    listed = _git("ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *SOURCES)
    return [path for path in listed.split("\0") if path and (ROOT / path).is_file()]


@contextmanager
def _alone() -> Iterator[None]:
    """One build at a time: another `bench-compare` may want the same."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(tree: Tree, which: str, say: Say) -> None:
    """Build a tree, unless that is done. TreeError with the last words of what failed."""
    with _alone():
        _forget_old(tree)
        if not (tree.path / "source" / "pyproject.toml").exists():
            _unpack(tree)
        target = tree.path / which
        if (target / "done").exists():
            return
        say(f"building {tree.title}, {which}" + (" (minutes)" if which == "compiled" else ""))
        try:
            _install(tree, which)
            _try(tree, which)
            (target / "done").touch()
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


def _forget_old(tree: Tree) -> None:
    """States that were never committed are of no use after a day."""
    for path in CACHE.glob(f"{HERE_PREFIX}*"):
        if path != tree.path and time.time() - path.stat().st_mtime > DAY:
            shutil.rmtree(path, ignore_errors=True)


def _unpack(tree: Tree) -> None:
    """Put the source there, whole or not at all."""
    part = tree.path / "source.part"
    shutil.rmtree(tree.path / "source", ignore_errors=True)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if tree.key.startswith(HERE_PREFIX):
            for path in _files_here():
                (part / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, part / path)
        else:
            archive = part.with_suffix(".tar")
            _git("archive", "--format=tar", f"--output={archive}", tree.commit)
            shutil.unpack_archive(archive, part, "tar")
            archive.unlink()
        if not (part / "pyproject.toml").exists():
            raise TreeError(f"{tree.title} has no pyproject.toml: it is too old to be built")
        part.rename(tree.path / "source")
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _install(tree: Tree, which: str) -> None:
    """A virtual environment with the tree's wheel."""
    target = tree.path / which
    shutil.rmtree(target, ignore_errors=True)
    _must(tree, which, [sys.executable, "-m", "venv", "--without-pip", str(target)])
    wheels = target / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _must(
        tree,
        which,
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(tree.path / "source")],
        {"SKBUS_COMPILE": "1" if which == "compiled" else "0"},
    )
    wheel = next(wheels.glob("*.whl"))
    python = str(tree.python(which))
    _must(tree, which, [*pip, "--python", python, "install", "--no-deps", str(wheel)])
    packages = next((target / "lib").glob("python3.*")) / "site-packages"
    (packages / "_shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def _try(tree: Tree, which: str) -> None:
    """Does it start? And is it what was asked for?"""
    command = str(tree.python(which).with_name("skbus"))
    _must(tree, which, [command, "--help"])
    where = _must(
        tree, which, [str(tree.python(which)), "-P", "-c", "import skbus; print(skbus.__path__[0])"]
    )
    if not Path(where.splitlines()[-1]).is_relative_to(tree.path / which):
        raise TreeError(f"{tree.title}, {which}: Python takes skbus from {where.strip()}")
    if which == "compiled" and not list((tree.path / which).glob("lib/*/site-packages/**/*.so")):
        raise TreeError(
            f"{tree.title} has no compiled build: leave it out (--subjects interpreted)"
        )


def _must(tree: Tree, which: str, command: list[str], env: dict[str, str] | None = None) -> str:
    status, text = _run(command, env)
    if status:
        last = "\n".join(f"    {line}" for line in text.strip().splitlines()[-12:])
        raise TreeError(
            f"{tree.title} does not build ({which}): {' '.join(command)}\n{last}\n"
            f"  Its source is in {tree.path / 'source'}; --subjects leaves a build out"
        )
    return text
