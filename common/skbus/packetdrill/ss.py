# SPDX-License-Identifier: MIT
"""`ss` for scripts: iproute2's columns and filters, about the stack under test.

The interpreter writes a snapshot of the sockets (`snapshot`, from /proc/net of the stack and the
options of sockets). A script's shell finds `python -m skbus.packetdrill.ss SNAPSHOT LOG
ARGUMENT...` as ss, which prints from the snapshot. It notes in LOG all that it does not know, and
the script is refused, because an ss that prints nothing would let it pass. See `man 8 ss`.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from skbus.packetdrill.code import sk_meminfo, tcp_info
from skbus.packetdrill.wire import Endpoint

STATES: Final = {
    1: "ESTAB",
    2: "SYN-SENT",
    3: "SYN-RECV",
    4: "FIN-WAIT-1",
    5: "FIN-WAIT-2",
    6: "TIME-WAIT",
    7: "UNCONN",
    8: "CLOSE-WAIT",
    9: "LAST-ACK",
    10: "LISTEN",
    11: "CLOSING",
}
TCP_LISTEN: Final = 10
_CONNECTED: Final = frozenset({1, 2, 3, 4, 5, 6, 8, 9, 11})
_NAMED: Final[dict[str, frozenset[int]]] = {
    **{name.lower(): frozenset({number}) for number, name in STATES.items()},
    "established": frozenset({1}),
    "closed": frozenset({7}),
    "listening": frozenset({10}),
    "fin-wait": frozenset({4, 5}),
    "all": frozenset(STATES),
    "connected": _CONNECTED,
    "synchronized": _CONNECTED - {2},
    "bucket": frozenset({3, 6}),
    "big": frozenset(STATES) - {3, 6},
}
_TIMERS: Final = {1: "on", 2: "keepalive", 3: "timewait", 4: "persist"}


class SsError(Exception):
    """An argument that has no stand-in; the text says which."""


class Info(NamedTuple):
    """What a socket's options say: TCP_INFO, TCP_CONGESTION, SO_MEMINFO; b"" for none."""

    local: Endpoint
    remote: Endpoint
    info: bytes
    congestion: bytes
    memory: bytes


# ---- what there is -----------------------------------------------------------------------


def snapshot(proc: Callable[[str], str | None], infos: Sequence[Info]) -> str:
    """All that ss may be asked, as JSON. proc: the text of /proc/net/NAME."""
    known = {_key(i.local, i.remote): i for i in infos}
    found = []
    for netid in ("udp", "raw", "tcp"):
        for line in (proc(netid) or "").splitlines()[1:]:
            one = _socket(netid, line.split())
            local, remote = one["local"], one["peer"]
            info = known.get((*local, *remote)) or known.get((*local, "0.0.0.0", 0))
            if info is not None:
                one["info"] = tcp_info(info.info)
                one["options"] = info.info[5] if len(info.info) > 5 else 0
                one["congestion"] = info.congestion.split(b"\0", 1)[0].decode()
                one["memory"] = sk_meminfo(info.memory)
                if one["state"] == TCP_LISTEN:  # how many wait, and how many may
                    one["recv_q"] = one["info"].get("tcpi_unacked", one["recv_q"])
                    one["send_q"] = one["info"].get("tcpi_sacked", one["send_q"])
            found.append(one)
    return json.dumps(found)


def _key(local: Endpoint, remote: Endpoint) -> tuple[str, int, str, int]:
    return _dotted(local[0]), local[1], _dotted(remote[0]), remote[1]


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))


def _end(text: str) -> tuple[str, int]:
    address, port = text.split(":")
    return _dotted(int(address, 16).to_bytes(4, sys.byteorder)), int(port, 16)


def _socket(netid: str, words: list[str]) -> dict[str, Any]:
    """A line of /proc/net/tcp and its like (`skbus.inet.proc`)."""
    local, remote = _end(words[1]), _end(words[2])
    tx, rx = (int(n, 16) for n in words[4].split(":"))
    timer, when = (int(n, 16) for n in words[5].split(":"))
    return {
        "netid": netid,
        "state": int(words[3], 16),
        "local": local,
        "peer": remote,
        "recv_q": rx,
        "send_q": tx,
        "timer": timer,
        "when": when * 10,
        "retrnsmt": int(words[6], 16),
        "uid": int(words[7]) if len(words) > 7 else 0,
        "inode": int(words[9]) if len(words) > 9 else 0,
        "sk": words[11] if len(words) > 11 else "0",
    }


# ---- arguments ---------------------------------------------------------------------------


@dataclass
class Asked:
    """What a command line asks for."""

    netids: set[str] = field(default_factory=set)
    states: frozenset[int] = frozenset()
    numeric: bool = False
    header: bool = True
    info: bool = False
    memory: bool = False
    timers: bool = False
    extended: bool = False
    oneline: bool = False
    matches: Callable[[dict[str, Any]], bool] = lambda _: True


_LONG: Final = {
    "tcp": "t", "udp": "u", "raw": "w", "all": "a", "listening": "l", "numeric": "n", "info": "i",
    "memory": "m", "options": "o", "extended": "e", "no-header": "H", "oneline": "O", "ipv4": "4",
}  # fmt: skip
_NETIDS: Final = {"t": "tcp", "u": "udp", "w": "raw"}


def parse(arguments: Sequence[str]) -> Asked:
    """Of ss's command line. SsError."""
    asked = Asked()
    words: list[str] = []
    everything = listening = False
    for i, argument in enumerate(arguments):
        if argument.startswith("--"):
            letters = _LONG.get(argument[2:], argument)
        elif argument.startswith("-") and len(argument) > 1:
            letters = argument[1:]
        else:
            words = list(arguments[i:])
            break
        for letter in (letters,) if letters.startswith("-") else letters:
            if letter in _NETIDS:
                asked.netids.add(_NETIDS[letter])
            elif letter == "a":
                everything = True
            elif letter == "l":
                listening = True
            else:
                _switch(asked, letter)
    if not asked.netids:
        asked.netids = {"tcp", "udp", "raw"}
    asked.states = _CONNECTED - {3, 6}
    if everything:
        asked.states = frozenset(STATES)
    elif listening:
        asked.states = frozenset({7, 10})
    elif asked.netids.isdisjoint({"tcp"}):
        asked.states |= {7} if asked.netids == {"raw"} else frozenset()
    _filters(asked, words)
    return asked


def _switch(asked: Asked, letter: str) -> None:
    names = {"n": "numeric", "i": "info", "m": "memory", "o": "timers", "e": "extended",
             "O": "oneline"}  # fmt: skip
    if letter in names:
        setattr(asked, names[letter], True)
    elif letter == "H":
        asked.header = False
    elif letter != "4":
        raise SsError(f"ss has no stand-in for {letter if letter[:1] == '-' else '-' + letter}")


def _filters(asked: Asked, words: list[str]) -> None:
    """`state S`, `exclude S`, and then an expression."""
    named = False
    while words and words[0] in ("state", "exclude"):
        if len(words) < 2 or words[1].lower() not in _NAMED:
            raise SsError(f"ss has no stand-in for state {' '.join(words[1:2])}")
        given = _NAMED[words[1].lower()]
        if words[0] == "exclude":
            asked.states = (asked.states if named else frozenset(STATES)) - given
        else:
            asked.states = asked.states | given if named else given
        named = True
        del words[:2]
    tokens = re.findall(r"[()]|&&?|\|\|?|[<>!=]=|[<>=!]|[^\s()&|<>=!]+", " ".join(words))
    if tokens:
        expression = _Expression(tokens)
        asked.matches = expression.either()
        if expression.tokens:
            raise SsError(f"ss has no stand-in for {' '.join(expression.tokens)}")


_Test = Callable[[dict[str, Any]], bool]
_COMPARE: Final[dict[str, Callable[[int, int], bool]]] = {
    **dict.fromkeys(("=", "==", "eq"), lambda a, b: a == b),
    **dict.fromkeys(("!=", "ne", "neq"), lambda a, b: a != b),
    **dict.fromkeys(("<", "lt"), lambda a, b: a < b),
    **dict.fromkeys((">", "gt"), lambda a, b: a > b),
    **dict.fromkeys(("<=", "le", "leq"), lambda a, b: a <= b),
    **dict.fromkeys((">=", "ge", "geq"), lambda a, b: a >= b),
}


class _Expression:
    """ss's filter: sport, dport, src, dst; and, or, not, parentheses."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def _take(self, *texts: str) -> bool:
        if self.tokens and self.tokens[0] in texts:
            del self.tokens[0]
            return True
        return False

    def _next(self) -> str:
        if not self.tokens:
            raise SsError("ss: a filter that ends too early")
        return self.tokens.pop(0)

    def either(self) -> _Test:
        tests = [self._all()]
        while self._take("or", "|", "||"):
            tests.append(self._all())
        return lambda s: any(test(s) for test in tests)

    def _all(self) -> _Test:
        tests = [self._one()]
        while self.tokens and self.tokens[0] not in ("or", "|", "||", ")"):
            self._take("and", "&", "&&")
            tests.append(self._one())
        return lambda s: all(test(s) for test in tests)

    def _one(self) -> _Test:
        if self._take("not", "!"):
            negated = self._one()
            return lambda s: not negated(s)
        if self._take("("):
            inner = self.either()
            if not self._take(")"):
                raise SsError("ss: a ( is never closed")
            return inner
        word = self._next()
        if word in ("sport", "dport"):
            end = "local" if word == "sport" else "peer"
            compare = self._next() if self.tokens and self.tokens[0] in _COMPARE else "="
            port, test = _number(self._next()), _COMPARE[compare]
            return lambda s: test(s[end][1], port)
        if word in ("src", "dst"):
            self._take("=", "==")
            return _host("local" if word == "src" else "peer", self._next())
        raise SsError(f"ss has no stand-in for the filter {word}")


def _number(text: str) -> int:
    text = text.rpartition(":")[2]
    if not text.isdigit():
        raise SsError(f"ss has no stand-in for the port {text}: a number is needed")
    return int(text)


def _host(end: str, text: str) -> _Test:
    import ipaddress

    address, colon, port = text.partition(":")
    try:
        network = ipaddress.IPv4Network(address or "0.0.0.0/0", strict=False)
    except ValueError:
        raise SsError(f"ss has no stand-in for the address {text}") from None
    wanted = _number(port) if colon else None
    return lambda s: ipaddress.IPv4Address(s[end][0]) in network and wanted in (None, s[end][1])


# ---- printing ----------------------------------------------------------------------------


def show(sockets: Sequence[dict[str, Any]], asked: Asked) -> Iterator[str]:
    """The lines."""
    found = [
        s
        for s in sockets
        if s["netid"] in asked.netids and s["state"] in asked.states and asked.matches(s)
    ]
    with_netid, with_state = len(asked.netids) > 1, len(asked.states) != 1
    rows = [("Netid", "State", "Recv-Q", "Send-Q", "Local Address", "Port", "Peer Address",
             "Port", "Process")]  # fmt: skip
    rows += [
        (s["netid"], STATES[s["state"]], str(s["recv_q"]), str(s["send_q"]), *_address(s["local"]),
         *_address(s["peer"]), "".join(_beside(s, asked)))
        for s in found
    ]  # fmt: skip
    width = [max(len(row[i]) for row in rows) for i in range(9)]
    for n, row in enumerate(rows):
        if not n and not asked.header:
            continue
        cells = [row[i].ljust(width[i]) for i in range(4)]
        cells = cells[not with_netid :] if with_state else cells[:with_netid] + cells[2:]
        for i in (4, 6):
            cells.append(f"{row[i].rjust(width[i])}:{row[i + 1].ljust(width[i + 1])}")
        line = " ".join([*cells, row[8]])
        below = _below(found[n - 1], asked) if n else ""
        if below and asked.oneline:
            line += below
        yield line
        if below and not asked.oneline:
            yield "\t" + below


def _address(end: Sequence[Any]) -> tuple[str, str]:
    return str(end[0]), str(end[1] or "*")


def _beside(s: dict[str, Any], asked: Asked) -> Iterator[str]:
    if asked.timers and s["timer"]:
        yield f" timer:({_TIMERS[s['timer']]},{_clock(s['when'])},{s['retrnsmt']})"
    if asked.extended:
        if s["uid"]:
            yield f" uid:{s['uid']}"
        yield f" ino:{s['inode']} sk:{s['sk'].lstrip('0') or '0'}"


def _clock(ms: int) -> str:
    if ms >= 1000:
        return f"{ms // 1000}sec" if not ms % 1000 else f"{ms / 1000:.3f}".rstrip("0") + "sec"
    return f"{ms}ms"


def _below(s: dict[str, Any], asked: Asked) -> str:
    text = ""
    memory = s.get("memory")
    if asked.memory and memory:
        names = ("r RMEM_ALLOC", "rb RCVBUF", "t WMEM_ALLOC", "tb SNDBUF", "f FWD_ALLOC",
                 "w WMEM_QUEUED", "o OPTMEM", "bl BACKLOG", "d DROPS")  # fmt: skip
        pairs = (n.split() for n in names)
        numbers = ",".join(f"{short}{memory['SK_MEMINFO_' + name]}" for short, name in pairs)
        text += f" skmem:({numbers})"
    if asked.info and s.get("info"):
        text += " " + " ".join(_info(s, asked.numeric))
    return text


_OPTIONS: Final = ((1, "ts"), (2, "sack"), (8, "ecn"), (16, "ecnseen"), (32, "fastopen"))


def _info(s: dict[str, Any], numeric: bool) -> Iterator[str]:
    """As `tcp_stats_print` of iproute2 has it, which leaves out what is 0."""
    tcp: dict[str, int] = {k.removeprefix("tcpi_"): v for k, v in s["info"].items()}
    get = tcp.get
    yield from (name for bit, name in _OPTIONS if s["options"] & bit)
    if s["congestion"]:
        yield s["congestion"]
    if s["options"] & 4:
        yield f"wscale:{tcp['snd_wscale']},{tcp['rcv_wscale']}"
    if get("rto") and s["state"] != TCP_LISTEN:
        yield f"rto:{tcp['rto'] / 1000:g}"
    if get("backoff"):
        yield f"backoff:{tcp['backoff']}"
    if get("rtt"):
        yield f"rtt:{tcp['rtt'] / 1000:g}/{tcp['rttvar'] / 1000:g}"
    if get("ato"):
        yield f"ato:{tcp['ato'] / 1000:g}"
    if s["state"] != TCP_LISTEN:
        for key, name in (("snd_mss", "mss"), ("pmtu", "pmtu"), ("rcv_mss", "rcvmss"),
                          ("advmss", "advmss")):  # fmt: skip
            if get(key):
                yield f"{name}:{tcp[key]}"
    yield f"cwnd:{get('snd_cwnd', 0)}"
    if 0 < get("snd_ssthresh", 0) < 0x7FFFFFFF:
        yield f"ssthresh:{tcp['snd_ssthresh']}"
    for key in ("bytes_sent", "bytes_retrans", "bytes_acked", "bytes_received", "segs_out",
                "segs_in", "data_segs_out", "data_segs_in"):  # fmt: skip
        if get(key):
            yield f"{key}:{tcp[key]}"
    yield from _rates(tcp, numeric)
    if get("unacked"):
        yield f"unacked:{tcp['unacked']}"
    if get("retrans") or get("total_retrans"):
        yield f"retrans:{tcp['retrans']}/{tcp['total_retrans']}"
    for key in ("lost", "sacked", "dsack_dups"):
        if get(key) and s["state"] != TCP_LISTEN:
            yield f"{key}:{tcp[key]}"
    if get("reordering", 3) != 3:
        yield f"reordering:{tcp['reordering']}"
    if get("reord_seen"):
        yield f"reord_seen:{tcp['reord_seen']}"
    if get("rcv_rtt"):
        yield f"rcv_rtt:{tcp['rcv_rtt'] / 1000:g}"
    for key, name in (("rcv_space", "rcv_space"), ("rcv_ssthresh", "rcv_ssthresh"),
                      ("notsent_bytes", "notsent")):  # fmt: skip
        if get(key):
            yield f"{name}:{tcp[key]}"
    if 0 < get("min_rtt", 0) < 0xFFFFFFFF:
        yield f"minrtt:{tcp['min_rtt'] / 1000:g}"
    for key in ("rcv_ooopack", "snd_wnd"):
        if get(key):
            yield f"{key}:{tcp[key]}"


def _rates(tcp: dict[str, int], numeric: bool) -> Iterator[str]:
    get = tcp.get
    if get("rtt") and get("snd_cwnd") and get("snd_mss"):
        yield f"send {_bits(tcp['snd_cwnd'] * tcp['snd_mss'] * 8e6 / tcp['rtt'], numeric)}"
    for key, name in (("last_data_sent", "lastsnd"), ("last_data_recv", "lastrcv"),
                      ("last_ack_recv", "lastack")):  # fmt: skip
        if get(key):
            yield f"{name}:{tcp[key]}"
    if 0 < get("pacing_rate", 0) < (1 << 64) - 1:
        yield f"pacing_rate {_bits(tcp['pacing_rate'] * 8, numeric)}"
    if get("delivery_rate"):
        yield f"delivery_rate {_bits(tcp['delivery_rate'] * 8, numeric)}"
    if get("delivered"):
        yield f"delivered:{tcp['delivered']}"
    if get("delivery_rate_app_limited"):
        yield "app_limited"
    if get("busy_time"):
        yield f"busy:{tcp['busy_time'] // 1000}ms"


def _bits(rate: float, numeric: bool) -> str:
    if numeric:
        return f"{rate:.0f}bps"
    for unit in ("", "K", "M", "G"):
        if rate < 1000 or unit == "G":
            return f"{rate:.3g}{unit}bps"
        rate /= 1000
    raise AssertionError


def main(argv: list[str]) -> int:
    """The program: exit status 255 for what it does not know, as ss has it."""
    data, log, *arguments = argv
    try:
        asked = parse(arguments)
    except SsError as e:
        with open(log, "a") as f:
            f.write(f"refused\037{e}\n")
        sys.stderr.write(f"{e}\n")
        return 255
    with open(data) as f:
        sockets = json.load(f)
    try:
        for line in show(sockets, asked):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # grep -q has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
