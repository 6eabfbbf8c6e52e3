# SPDX-License-Identifier: MIT
"""A person at a terminal of 80 columns: bash on a pseudo-terminal, line after line; and the
commands of a page of documentation."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
_PROMPT: Final = re.compile(r"\x1d(\d+)\x1d\r?\n")
_COLOUR: Final = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][B0])")


class Output(NamedTuple):
    """What a command printed, and its exit status."""

    text: str
    status: int


class Terminal:
    """An interactive bash in a directory. It ends, with its jobs, at the end of `with`."""

    def __init__(self, cwd: Path, env: Mapping[str, str], *prefix: str) -> None:
        command = [*prefix, "bash", "--norc", "--noprofile", "--noediting", "-i"]
        settings = {"PS1": "", "PS2": "", "PROMPT_COMMAND": r"printf '\035%d\035\n' $?"}
        settings["VIRTUAL_ENV_DISABLE_PROMPT"] = "1"  # `activate` would put one before all output
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(cwd)
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.execvpe(command[0], command, {**env, **settings, "TERM": "xterm"})
            finally:
                os._exit(127)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        mode = termios.tcgetattr(self._fd)
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        self._unread = ""
        self._prompt(30)

    def run(self, line: str, seconds: float = 60) -> Output:
        """Type a command (or several lines that are one), and wait for the next prompt."""
        self.type(line)
        return self._prompt(seconds)

    def type(self, line: str) -> None:
        """Type it, and go on."""
        os.write(self._fd, line.encode() + b"\n")

    def wait_for(self, pattern: str, seconds: float = 60) -> None:
        """Until something that has been printed since the last prompt looks like this."""
        self._read_until(lambda: re.search(pattern, self._unread) is not None, pattern, seconds)

    def ctrl_c(self, seconds: float = 60) -> Output:
        """Interrupt the job in the foreground, and wait for the next prompt.

        bash prints the command that `fg` continues before it gives the terminal to that command. An
        interrupt between the two would be lost.
        """
        deadline = time.monotonic() + seconds
        while os.tcgetpgrp(self._fd) == self.pid and time.monotonic() < deadline:
            time.sleep(0.01)
        os.write(self._fd, b"\x03")
        return self._prompt(seconds)

    def _prompt(self, seconds: float) -> Output:
        self._read_until(lambda: _PROMPT.search(self._unread) is not None, "a prompt", seconds)
        found = _PROMPT.search(self._unread)
        assert found is not None
        text, self._unread = self._unread[: found.start()], self._unread[found.end() :]
        return Output(text, int(found[1]))

    def _read_until(self, done: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            ready = select.select([self._fd], [], [], max(left, 0))[0]
            if not ready:
                raise AssertionError(f"no {what!r} within {seconds:g} s:\n{self._unread}")
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"the shell ended before {what!r}:\n{self._unread}")
            text = data.decode(errors="replace").replace("\r\n", "\n")
            self._unread += _COLOUR.sub("", text)

    def close(self) -> None:
        """The terminal is closed: bash and its jobs get SIGHUP, as when a window is closed."""
        with contextlib.suppress(OSError):
            self.type("exit")
            self.type("exit")  # the first one may only warn of jobs
        os.close(self._fd)
        os.waitpid(self.pid, 0)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def assert_nothing_left(terminal: Terminal, environment: Mapping[str, str]) -> None:
    """The lab that SKBUS_DIR names is gone, and no process of this environment goes on."""
    assert not Path(environment["SKBUS_DIR"]).exists()
    mark = f"SKBUS_DIR={environment['SKBUS_DIR']}".encode()
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                left.append((int(process.name), (process / "cmdline").read_bytes()))
    assert [cmdline for pid, cmdline in left if pid != terminal.pid] == []


def sections(page: Path) -> dict[str, list[str]]:
    """Heading -> the blocks of code below it, without their indentation."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    block: list[str] = []
    for line in [*page.read_text().splitlines(), "end"]:
        if line.startswith("    ") or (block and not line):
            block.append(line.removeprefix("    "))
            continue
        if block:
            found[heading].append("\n".join(block).rstrip("\n"))
            block = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
            found[heading] = []
    return found


def commands(block: str) -> list[str]:
    """The commands of a block: a line each, but for a here-document, which is one with its body.
    Comments are left in, as a person would paste them."""
    found: list[str] = []
    end = ""
    for line in block.splitlines():
        if end:
            found[-1] += "\n" + line
            end = "" if line == end else end
        elif line.strip():
            found.append(line)
            here = re.search(r"<<'?(\w+)'?", line)
            end = here[1] if here else ""
    return found
