# SPDX-License-Identifier: MIT
"""The shell commands of scripts: run for what they would set in the machine's stack.

A script's command runs in a real shell, but sysctl, ip, tc, ethtool and nstat are there replaced
by programs that only note how they were called, and /proc and /sys by an empty directory. What
was set is then set in the stack under test; the machine's own stack is left alone.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

_NOTED: Final = ("sysctl", "ip", "tc", "ethtool", "ifconfig")
_SHIM: Final = """#!/bin/sh
printf '%s\\037' "${0##*/}" "$@" >> "$SKBUS_SHIM_LOG"
echo >> "$SKBUS_SHIM_LOG"
"""
_NSTAT: Final = """#!/bin/sh
cat "$SKBUS_SHIM_NSTAT"
"""
_SET_SYSCTLS: Final = re.compile(r"\S*/set_sysctls\.py")
_RESTORE: Final = re.compile(r"\S*/sysctl_restore_[^\s;]*")
_PROC: Final = re.compile(r"(?<![\w.$}/-])/(proc|sys)/([\w./-]*)")
_CUBIC: Final = "/sys/module/tcp_cubic/parameters/"
"""Where Linux has what are sysctls of ours, `net.ipv4.tcp_cubic_...`."""
TIME_LIMIT: Final = 30.0
"""Seconds that a command may take."""


@dataclass(slots=True)
class Outcome:
    """What a command did. status: its exit status."""

    status: int = 0
    output: str = ""
    sysctls: list[tuple[str, str]] = field(default_factory=list)
    others: list[list[str]] = field(default_factory=list)
    """calls of ip, tc, ethtool: program and arguments"""
    written: dict[str, str] = field(default_factory=dict)
    """files in /proc (other than /proc/sys) and /sys that were written"""


def switched(args: Sequence[str], feature: str) -> bool | None:
    """What `ethtool -K DEV ...` says of a feature: on, off, or nothing."""
    if args[:1] != ["-K"] or feature not in args[2:-1]:
        return None
    return args[args.index(feature, 2) + 1] == "on"


def nstat(counters: Mapping[str, int]) -> str:
    """What nstat prints."""
    return "".join(f"{name:<32} {value:<16} 0.0\n" for name, value in counters.items())


def proc_net_tcp(ports: Sequence[int]) -> str:
    """As much of /proc/net/tcp as scripts look at: listening ports."""
    return "".join(
        f"   {i}: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000\n"
        for i, port in enumerate(ports)
    )


def run_command(
    text: str, cwd: str, nstat: str = "", files: dict[str, str] | None = None
) -> Outcome:
    """Run a command of a script that stands in `cwd`.

    nstat: what nstat prints. files: what is to be found in /proc and /sys.
    """
    if "nstat" in text or _PROC.search(_SET_SYSCTLS.sub("", text).replace("/proc/sys/", "")):
        return _run(text, cwd, nstat, files or {})
    return _run_cached(text, cwd)


@lru_cache(maxsize=256)
def _run_cached(text: str, cwd: str) -> Outcome:
    """A command that asks for nothing does the same each time."""
    return _run(text, cwd, "", {})


def _run(text: str, cwd: str, nstat: str, files: dict[str, str]) -> Outcome:
    command = _RESTORE.sub(":", _SET_SYSCTLS.sub("sysctl -q", text))
    with tempfile.TemporaryDirectory(prefix="skbus-packetdrill-") as directory:
        root = Path(directory)
        bin_dir, log = root / "bin", root / "log"
        bin_dir.mkdir()
        for name in _NOTED:
            _program(bin_dir / name, _SHIM)
        _program(bin_dir / "nstat", _NSTAT)
        (root / "nstat").write_text(nstat)
        for path, content in files.items():
            _file(root, path).write_text(content)
        before = _snapshot(root)
        done = _shell(_replace_proc(command, root), cwd, root)
        outcome = Outcome(done.returncode, done.stdout)
        for line in log.read_text().splitlines() if log.exists() else ():
            program, *args = line.rstrip("\037").split("\037")
            if program == "sysctl":
                outcome.sysctls += _assignments(args, root)
            else:
                outcome.others.append([program, *args])
        for path, content in _snapshot(root).items():
            if before.get(path) == content:
                continue
            if path.startswith(_CUBIC):
                name = "net.ipv4.tcp_cubic_" + path.removeprefix(_CUBIC)
                outcome.sysctls.append((name, content.strip()))
            elif path.startswith("/proc/sys/"):
                outcome.sysctls.append((_sysctl_name(path), content.strip()))
            else:
                outcome.written[path] = content.strip()
        return outcome


def _shell(command: str, cwd: str, root: Path) -> "subprocess.CompletedProcess[str]":
    env = {
        **os.environ,
        "PATH": f"{root / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "PACKETDRILL_PID": str(os.getpid()),
        "SKBUS_SHIM_LOG": str(root / "log"),
        "SKBUS_SHIM_NSTAT": str(root / "nstat"),
    }
    try:
        return subprocess.run(
            ["sh", "-c", command],
            cwd=cwd or ".",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 124, f"not done after {TIME_LIMIT:g} s")


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _file(root: Path, path: str) -> Path:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _replace_proc(command: str, root: Path) -> str:
    def place(match: re.Match[str]) -> str:
        return str(_file(root, match[0]))

    return _PROC.sub(place, command)


def _snapshot(root: Path) -> dict[str, str]:
    return {
        str(f).removeprefix(str(root)): f.read_text(errors="replace")
        for top in ("proc", "sys")
        for f in (root / top).rglob("*")
        if f.is_file()
    }


def _assignments(args: list[str], root: Path) -> list[tuple[str, str]]:
    out = []
    for arg in args:
        name, equals, value = arg.partition("=")
        if equals and not name.startswith("-"):
            out.append((_sysctl_name(name.removeprefix(str(root))), value.strip()))
    return out


def _sysctl_name(name: str) -> str:
    return name.removeprefix("/proc/sys/").replace("/", ".")
