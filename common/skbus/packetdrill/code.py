# SPDX-License-Identifier: MIT
"""The Python in %{ }% of a script: run with the members of tcp_info as its variables.

All blocks of a script share their variables, as they do in packetdrill; they are run when their
time has come, not at the end. They can do whatever Python can: a script is a program.
"""

import contextlib
import io
import re
import struct
from types import CodeType
from typing import Any, Final

from skbus.inet.tcp_info import TcpInfo

_STATES: Final = (
    "ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK"
    " LISTEN CLOSING"
).split()
_CA_STATES: Final = "Open Disorder CWR Recovery Loss".split()
_OPTIONS: Final = "TIMESTAMPS SACK WSCALE ECN ECN_SEEN SYN_DATA USEC_TS TFO_CHILD".split()

CONSTANTS: Final[dict[str, int]] = {
    **{f"TCP_{name}": i for i, name in enumerate(_STATES, 1)},
    **{f"TCP_CA_{name}": i for i, name in enumerate(_CA_STATES)},
    **{f"TCPI_OPT_{name}": 1 << i for i, name in enumerate(_OPTIONS)},
}
"""`include/net/tcp_states.h`, `include/uapi/linux/tcp.h`"""

TCP_INFO_SIZE: Final = 280
"""More than struct tcp_info has."""

SK_MEMINFO: Final = (
    "RMEM_ALLOC RCVBUF WMEM_ALLOC SNDBUF FWD_ALLOC WMEM_QUEUED OPTMEM BACKLOG DROPS"
).split()
"""`include/uapi/linux/sock_diag.h`"""
MEMINFO_SIZE: Final = 4 * len(SK_MEMINFO)


class CodeError(Exception):
    """A block that failed: the assertion or the exception, in a line."""


def tcp_info(data: bytes) -> dict[str, int]:
    """struct tcp_info (`include/uapi/linux/tcp.h`) as the script's variables; members that the
    stack does not give are left out."""
    info = TcpInfo.unpack(data)
    return {f"tcpi_{name}": getattr(info, name) for name in TcpInfo.members(len(data))}


def sk_meminfo(data: bytes) -> dict[str, int]:
    """SO_MEMINFO's array as the script's variables."""
    values = struct.unpack(f"={len(data) // 4}I", data[: len(data) // 4 * 4])
    return {f"SK_MEMINFO_{name}": v for name, v in zip(SK_MEMINFO, values, strict=False)}


class CodeRunner:
    """The Python of one script."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._variables: dict[str, Any] = {"__name__": "packetdrill", **CONSTANTS}

    def run(self, text: str, line: int, values: dict[str, int]) -> str:
        """Run a block that stands at `line`; returns what it printed. CodeError."""
        for name in [n for n in self._variables if n.startswith(("tcpi_", "SK_MEMINFO_"))]:
            del self._variables[name]
        self._variables.update(values)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(self._compile(text, line), self._variables)
        except AssertionError as e:
            raise CodeError(self._explain(text, line, e)) from e
        except Exception as e:
            raise CodeError(f"{type(e).__name__}: {e}") from e
        return printed.getvalue()

    def _compile(self, text: str, line: int) -> CodeType:
        """With the script's own line numbers."""
        try:
            # a script may end its last line with a backslash
            return compile("\n" * (line - 1) + text + "\n\n", self.path or "script", "exec")
        except SyntaxError as e:
            raise CodeError(f"SyntaxError: {e}") from e

    def _explain(self, text: str, line: int, error: AssertionError) -> str:
        """The assertion that failed, and the values of what it names."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        lines = text.split("\n")
        at = trace.tb_lineno - line if trace is not None else 0
        failed = lines[at].strip() if 0 <= at < len(lines) else text
        values = ", ".join(
            f"{name} = {self._variables[name]}"
            for name in dict.fromkeys(_NAME.findall(failed))
            if name in self._variables
        )
        return failed + (f" [{values}]" if values else "")


_NAME: Final = re.compile(r"\b(?:tcpi|SK_MEMINFO)_\w+")
