# SPDX-License-Identifier: MIT
"""Parsers of /proc/net files, for Linux's and for ours alike. Each returns a list of dicts, one
for each line, keyed by the names of the columns. ValueError where a line is malformed."""

import re
import socket
import struct
from collections.abc import Callable, Iterator

Row = dict[str, str]


def address(field: str) -> tuple[str, int]:
    """A field such as "0100007F:0050" as (address, port)."""
    host, port = field.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)


def pairs(text: str) -> list[Row]:
    """snmp, netstat: a line of names above a line of numbers."""
    rows = []
    lines = text.splitlines()
    for head, values in zip(lines[::2], lines[1::2], strict=True):
        group, *names = head.split(" ")
        again, *numbers = values.split(" ")
        if group != again or len(names) != len(numbers):
            raise ValueError(head)
        [int(n) for n in numbers]
        rows.append({"": group.rstrip(":"), **dict(zip(names, numbers, strict=True))})
    return rows


_SOCKET = re.compile(
    r" *(?P<sl>\d+): (?P<local_address>[0-9A-F]{8}:[0-9A-F]{4})"
    r" (?P<rem_address>[0-9A-F]{8}:[0-9A-F]{4}) (?P<st>[0-9A-F]{2})"
    r" (?P<tx_queue>[0-9A-F]{8}):(?P<rx_queue>[0-9A-F]{8})"
    r" (?P<tr>[0-9A-F]{2}):(?P<when>[0-9A-F]{8,}) (?P<retrnsmt>[0-9A-F]{8})"
    r" (?P<uid> *\d+) (?P<timeout> *\d+) (?P<inode>\d+) (?P<ref>\d+) (?P<pointer>[0-9a-f]{16})"
    r"(?P<rest>( -?\d+)*) *"
)


def sockets(text: str) -> list[Row]:
    """tcp, udp, udplite, raw, icmp"""
    rows = []
    for line in text.splitlines()[1:]:
        found = _SOCKET.fullmatch(line)
        if found is None:
            raise ValueError(line)
        rows.append({k: v.strip() for k, v in found.groupdict().items()})
    return rows


def named(text: str) -> list[Row]:
    """sockstat: name, then pairs of word and number."""
    rows = []
    for line in text.splitlines():
        name, *words = line.split(" ")
        values = dict(zip(words[::2], words[1::2], strict=True))
        [int(v) for v in values.values()]
        rows.append({"": name.rstrip(":"), **values})
    return rows


def table(text: str) -> list[Row]:
    """route and protocols: a line of names, then a line for each."""
    lines = text.splitlines()
    names = lines[0].split()
    return [dict(zip(names, line.split(), strict=True)) for line in lines[1:]]


def arp(text: str) -> list[Row]:
    """arp: names of two words."""
    names = re.split(r"  +", text.splitlines()[0])
    return [dict(zip(names, line.split(), strict=True)) for line in text.splitlines()[1:]]


def dev(text: str) -> list[Row]:
    """dev: two lines of names."""
    lines = text.splitlines()
    receive, transmit = (part.split() for part in lines[1].split("|")[1:])
    names = [f"rx {n}" for n in receive] + [f"tx {n}" for n in transmit]
    rows = []
    for line in lines[2:]:
        name, numbers = line.split(":")
        rows.append({"": name.strip(), **dict(zip(names, numbers.split(), strict=True))})
    return rows


def igmp(text: str) -> list[Row]:
    """igmp: a line for each device, then one for each group."""
    return list(_igmp(text.splitlines()[1:]))


def _igmp(lines: list[str]) -> Iterator[Row]:
    device = re.compile(r"(?P<Idx>\d+)\t(?P<Device>\S+) *: +(?P<Count>\d+) +(?P<Querier>V\d)")
    group = re.compile(
        r"\t{4}(?P<Group>[0-9A-F]{8}) +(?P<Users>\d+) (?P<Timer>[01]:[0-9A-F]{8})\t\t"
        r"(?P<Reporter>[01])"
    )
    head: Row = {}
    for line in lines:
        if found := device.fullmatch(line):
            head = found.groupdict()
        elif found := group.fullmatch(line):
            yield {**head, **found.groupdict()}
        else:
            raise ValueError(line)


PARSERS: dict[str, Callable[[str], list[Row]]] = {
    "arp": arp,
    "dev": dev,
    "icmp": sockets,
    "igmp": igmp,
    "netstat": pairs,
    "protocols": table,
    "raw": sockets,
    "route": table,
    "snmp": pairs,
    "sockstat": named,
    "tcp": sockets,
    "udp": sockets,
    "udplite": sockets,
}


def heads(name: str, text: str) -> list[str]:
    """The lines of a file that name columns."""
    lines = text.splitlines()
    if name in ("snmp", "netstat"):
        return lines[::2]
    if name == "sockstat":
        return [re.sub(r"\d+", "N", line) for line in lines]
    return lines[: 2 if name == "dev" else 1]
