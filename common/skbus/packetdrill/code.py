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

_BYTES: Final = "state ca_state retransmits probes backoff options wscale flags".split()
_LAYOUT: Final = (
    (
        "I",
        "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent"
        " last_ack_sent last_data_recv last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh"
        " snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans",
    ),
    ("Q", "pacing_rate max_pacing_rate bytes_acked bytes_received"),
    ("I", "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
    ("Q", "delivery_rate busy_time rwnd_limited sndbuf_limited"),
    ("I", "delivered delivered_ce"),
    ("Q", "bytes_sent bytes_retrans"),
    ("I", "dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash"),
    ("H", "total_rto total_rto_recoveries"),
    ("I", "total_rto_time received_ce"),
    (
        "I",
        "delivered_e1_bytes delivered_e0_bytes delivered_ce_bytes received_e1_bytes"
        " received_e0_bytes received_ce_bytes",
    ),
    ("H", "accecn_fail_mode accecn_opt_seen"),
)
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
    values: dict[str, int] = {}
    for name, value in zip(_BYTES, data, strict=False):
        values["tcpi_" + name] = value
    wscale = values.pop("tcpi_wscale", 0)
    values["tcpi_snd_wscale"] = wscale & 15
    values["tcpi_rcv_wscale"] = wscale >> 4
    flags = values.pop("tcpi_flags", 0)
    values["tcpi_delivery_rate_app_limited"] = flags & 1
    values["tcpi_fastopen_client_fail"] = flags >> 1 & 3
    at = 8
    for kind, names in _LAYOUT:
        for name in names.split():
            size = struct.calcsize(kind)
            if at + size > len(data):
                return values
            (values["tcpi_" + name],) = struct.unpack_from("=" + kind, data, at)
            at += size
    return values


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
