# SPDX-License-Identifier: MIT
"""The shell commands of scripts: run for what they would set in the machine's stack.

A script's command runs in a real shell. Programs of ours stand there for sysctl, ip, tc, ethtool,
nstat, ss and others. They note how they were called, or print the answers of the stack under test.
A directory of our own stands for /proc and /sys. What was set is then set in the stack under test,
and the machine's own stack is left alone.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_NOTED: Final = tuple(
    """ip tc ethtool ifconfig route arp bridge iptables ip6tables nft ipset conntrack modprobe
    netstat""".split()
)
_SHIM: Final = """#!/bin/sh
printf '%s\\037' "${0##*/}" "$@" >> "$SKBUS_SHIM_LOG"
echo >> "$SKBUS_SHIM_LOG"
"""
_NSTAT: Final = """#!/bin/sh
cat "$SKBUS_SHIM_DIR/nstat"
"""
_SYSCTL: Final = """#!/bin/sh
only= status=0
for word do
    case $word in
        -n | --values) only=1 ;;
        -q | -w | -e | --quiet | --write | --ignore) ;;
        -*) printf 'sysctl\\037%s\\n' "$word" >> "$SKBUS_SHIM_LOG" ;;
        *=*) printf 'sysctl\\037%s\\037\\n' "$word" >> "$SKBUS_SHIM_LOG" ;;
        *)
            printf 'asked\\n' >> "$SKBUS_SHIM_LOG"
            name=$(printf %s "${word#/proc/sys/}" | tr / .)
            value=$(sed -n "s/^$name = //p" "$SKBUS_SHIM_DIR/sysctls")
            if ! grep -q "^$name = " "$SKBUS_SHIM_DIR/sysctls"; then
                echo "sysctl: cannot stat /proc/sys/$(printf %s "$name" | tr . /):" \\
                    "No such file or directory" >&2
                status=255
            elif [ "$only" ]; then
                printf '%s\\n' "$value"
            else
                printf '%s = %s\\n' "$name" "$value"
            fi ;;
    esac
done
exit $status
"""
_SS: Final = """#!/bin/sh
exec {python} -I -m skbus.packetdrill.ss "$SKBUS_SHIM_DIR/ss" "$SKBUS_SHIM_LOG" "$@"
"""
_SET_SYSCTLS: Final = re.compile(r"\S*/set_sysctls\.py")
_RESTORE: Final = re.compile(r"\S*/sysctl_restore_[^\s;]*")
_PROC: Final = re.compile(r"(?<![\w.$}/-])/(proc|sys)/([\w./-]*)")
_SYSCTL_FILE: Final = re.compile(r"/proc/sys/|/sys/module/")
_WRITES: Final = re.compile(r">\s*/(proc/sys|sys/module)/[\w./-]*|/proc/sys/[\w./-]*=")
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
    """calls of ip, tc, ethtool and their like: program and arguments"""
    written: dict[str, str] = field(default_factory=dict)
    """files in /proc (other than /proc/sys) and /sys that were written"""
    refused: list[str] = field(default_factory=list)
    """sentences: what a stand-in was asked that it does not know"""
    asked: bool = False
    """whether what it did may depend on the stack's state"""


@dataclass(slots=True)
class Asked:
    """What the stand-ins print: each is called when a command may look at it.

    nstat: counter -> value. sysctls: name -> value. proc: the text of /proc/net/NAME, or None
    where there is no such file. ss: what `skbus.packetdrill.ss` prints from, as JSON.
    """

    nstat: Callable[[], Mapping[str, int]] = dict
    sysctls: Callable[[], Mapping[str, object]] = dict
    proc: Callable[[str], str | None] = lambda name: None
    ss: Callable[[], str] = lambda: "[]"


def nstat(counters: Mapping[str, int]) -> str:
    """What nstat prints."""
    return "".join(f"{name:<32} {value:<16} 0.0\n" for name, value in counters.items())


_known: dict[tuple[str, str], Outcome] = {}
"""What commands do that ask for nothing: the same each time."""


def run_command(text: str, cwd: str, asked: Asked | None = None) -> Outcome:
    """Run a command of a script that stands in `cwd`."""
    key = text, cwd
    if key not in _known:
        outcome = _run(text, cwd, asked or Asked())
        if outcome.asked:
            return outcome
        _known[key] = outcome
    return _known[key]


def _run(text: str, cwd: str, asked: Asked) -> Outcome:
    command = _RESTORE.sub(":", _SET_SYSCTLS.sub("sysctl -q", text))
    with tempfile.TemporaryDirectory(prefix="skbus-packetdrill-") as directory:
        root = Path(directory)
        log = root / "log"
        _stand_ins(root)
        reads = _put_files(root, command, asked)
        for file in (f for top in ("proc", "sys") for f in (root / top).rglob("*")):
            if file.is_file():
                os.utime(file, (0, 0))
        before = _snapshot(root)
        done = _shell(_replace_proc(command, root), cwd, root)
        outcome = Outcome(done.returncode, done.stdout, asked=reads)
        for line in log.read_text().splitlines() if log.exists() else ():
            _noted(outcome, line, root)
        for path, (_, content) in (after := _snapshot(root)).items():
            if before.get(path) == after[path]:
                continue
            if path.startswith(("/proc/sys/", _CUBIC)):
                outcome.sysctls.append((_sysctl_name(path), content.strip()))
            else:
                outcome.written[path] = content.strip()
        return outcome


def _stand_ins(root: Path) -> None:
    bin_dir = root / "bin"
    bin_dir.mkdir()
    for name in _NOTED:
        _program(bin_dir / name, _SHIM)
    _program(bin_dir / "sysctl", _SYSCTL)
    _program(bin_dir / "nstat", _NSTAT)
    _program(bin_dir / "ss", _SS.format(python=shlex.quote(sys.executable)))


def _put_files(root: Path, command: str, asked: Asked) -> bool:
    """What the command's programs may read; whether it is a command that may."""
    reads = False
    if re.search(r"\bnstat\b", command):
        reads = True
        (root / "nstat").write_text(nstat(asked.nstat()))
    if re.search(r"\bss\b", command):
        reads = True
        (root / "ss").write_text(asked.ss())
    values: dict[str, str] = {}
    if "sysctl" in command or "/proc/sys/" in command or _CUBIC in command:
        values = {name: _text(value) for name, value in asked.sysctls().items()}
        lines = (f"{name} = {value}\n" for name, value in values.items())
        (root / "sysctls").write_text("".join(lines))
    for match in _PROC.finditer(command):
        path = match[0]
        name = path.removeprefix("/proc/net/")
        if (sysctl := _sysctl_name(path)) in values:
            _file(root, path).write_text(values[sysctl] + "\n")
        elif name != path and (content := asked.proc(name)) is not None:
            reads = True
            _file(root, path).write_text(content)
    return reads or bool(_SYSCTL_FILE.search(_WRITES.sub("", command)))


def _noted(outcome: Outcome, line: str, root: Path) -> None:
    """A line of what the stand-ins have written down."""
    program, *args = line.rstrip("\037").split("\037")
    if program == "asked":
        outcome.asked = True
    elif program == "refused":
        outcome.refused += args
    elif program == "sysctl":
        outcome.sysctls += _assignments(args, root)
        outcome.refused += [f"sysctl has no stand-in for {a}" for a in args if a[:1] == "-"]
    else:
        outcome.others.append([program, *args])


def _text(value: object) -> str:
    """A sysctl's value as /proc/sys has it."""
    return "\t".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _shell(command: str, cwd: str, root: Path) -> "subprocess.CompletedProcess[str]":
    env = {
        **os.environ,
        "PATH": f"{root / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "PACKETDRILL_PID": str(os.getpid()),
        "SKBUS_SHIM_LOG": str(root / "log"),
        "SKBUS_SHIM_DIR": str(root),
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


def _snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Each file's time of change and content. What is there from the beginning is of 1970, so
    that a write of the same shows."""
    return {
        str(f).removeprefix(str(root)): (f.stat().st_mtime_ns, f.read_text(errors="replace"))
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
    if name.startswith(_CUBIC):
        return "net.ipv4.tcp_cubic_" + name.removeprefix(_CUBIC)
    return name.removeprefix("/proc/sys/").replace("/", ".")
