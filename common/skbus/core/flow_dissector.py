# SPDX-License-Identifier: MIT
"""The flow of an skb: addresses and ports (`net/core/flow_dissector.c`).

Called by `Net.trace` for each line of the trace, and by commands that look for a flow in one. In
text, a flow is `10.77.0.1:40112->10.77.0.2:80`, without ports `10.77.0.1->10.77.0.2`. The first
address is the sender's. A socket's flow begins with our own address; `*` is the peer's port as
long as there is no peer.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

from skbus.core.abi import DataReadyCb, RcvCb, UdpSendmsgCb, XmitCb
from skbus.core.skbuff import ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, SkBuff

IPPROTO_ICMP: Final = 1
PORTS: Final = frozenset({6, 17, 33, 132, 136})
"""Protocols whose header begins with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""
ICMP_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
"""ICMP messages that quote the packet that they are about (RFC 792)."""

NO_PORT: Final = -1


class Flow(NamedTuple):
    """Addresses of 4 or 16 bytes; NO_PORT where there is none to see."""

    saddr: bytes
    sport: int
    daddr: bytes
    dport: int

    def __str__(self) -> str:
        return _text(self.saddr, self.sport, self.daddr, self.dport)


@lru_cache(4096)
def _text(saddr: bytes, sport: int, daddr: bytes, dport: int) -> str:
    """A flow as text; cached, because many lines in a row have the same flow."""
    return f"{_end(saddr, sport)}->{_end(daddr, dport)}"


def _address(value: bytes) -> str:
    if len(value) == 4:
        return "{}.{}.{}.{}".format(*value)
    return str(IPv6Address(value)) if len(value) == 16 else value.hex()


def _end(addr: bytes, port: int) -> str:
    text = _address(addr)
    if port == NO_PORT:
        return text
    if len(addr) == 16:
        text = f"[{text}]"
    return f"{text}:{port or '*'}"


# ---- of packets ------------------------------------------------------------------------------


def ip_flow(head: bytes, nhoff: int) -> Flow | None:
    """The flow of the IPv4 packet at `nhoff`. Fragments behind the first have no ports, nor has a
    packet whose header is cut off."""
    if nhoff < 0 or len(head) < nhoff + 20 or head[nhoff] >> 4 != 4:
        return None
    saddr, daddr = head[nhoff + 12 : nhoff + 16], head[nhoff + 16 : nhoff + 20]
    thoff = nhoff + (head[nhoff] & 15) * 4
    first = not (head[nhoff + 6] & 0x1F or head[nhoff + 7])
    if head[nhoff + 9] in PORTS and first and len(head) >= thoff + 4:
        return _with_ports(saddr, daddr, head, thoff)
    return Flow(saddr, NO_PORT, daddr, NO_PORT)


def _with_ports(saddr: bytes, daddr: bytes, head: bytes, thoff: int) -> Flow:
    sport, dport = head[thoff : thoff + 2], head[thoff + 2 : thoff + 4]
    return Flow(saddr, int.from_bytes(sport, "big"), daddr, int.from_bytes(dport, "big"))


def arp_flow(head: bytes, nhoff: int) -> Flow | None:
    """Sender and target of the ARP message for IPv4 at `nhoff` (RFC 826)."""
    if len(head) < nhoff + 28 or head[nhoff + 4 : nhoff + 6] != b"\x06\x04":
        return None
    return Flow(head[nhoff + 14 : nhoff + 18], NO_PORT, head[nhoff + 24 : nhoff + 28], NO_PORT)


def frame_flow(head: bytes, mac: int) -> Flow | None:
    """The flow of an Ethernet frame."""
    nhoff = mac + 14
    protocol = int.from_bytes(head[mac + 12 : nhoff], "big")
    if protocol == ETH_P_8021Q:
        protocol = int.from_bytes(head[nhoff + 2 : nhoff + 4], "big")
        nhoff += 4
    if protocol == ETH_P_ARP:
        return arp_flow(head, nhoff)
    return ip_flow(head, nhoff) if protocol == ETH_P_IP else None


def skb_flow_dissect(skb: SkBuff, head: bytes) -> Flow | None:
    """The flow of an skb between ip and the socket layer: by its headers, or by its cb where the
    headers are not there. head: skb.head, and perhaps more of the skb's bytes."""
    cb = skb.cb
    if skb.network_header >= 0:
        if skb.protocol == ETH_P_ARP:
            return arp_flow(head, skb.network_header)
        flow = ip_flow(head, skb.network_header)
        if flow is not None and (flow.sport != NO_PORT or not isinstance(cb, DataReadyCb)):
            return flow
    if isinstance(cb, XmitCb):
        if len(cb.saddr) != 4 or len(cb.daddr) != 4:
            return None
        if cb.protocol in PORTS and len(head) >= skb.data + 4:
            return _with_ports(cb.saddr, cb.daddr, head, skb.data)
        return Flow(cb.saddr, NO_PORT, cb.daddr, NO_PORT)
    if isinstance(cb, DataReadyCb) and cb.saddr and cb.daddr:
        if cb.sport or cb.dport:
            return Flow(cb.saddr, cb.sport, cb.daddr, cb.dport)
        return Flow(cb.saddr, NO_PORT, cb.daddr, NO_PORT)
    if isinstance(cb, RcvCb) and len(cb.saddr) == 4 and len(cb.daddr) == 4:
        return Flow(cb.saddr, NO_PORT, cb.daddr, NO_PORT)
    return None


def icmp_about(head: bytes, nhoff: int) -> Flow | None:
    """The flow of the packet that the ICMP error at `nhoff` quotes (conntrack calls it related).
    None where the message is no ICMP error."""
    if nhoff < 0 or len(head) < nhoff + 28 or head[nhoff + 9] != IPPROTO_ICMP:
        return None
    thoff = nhoff + (head[nhoff] & 15) * 4
    if len(head) <= thoff + 8 or head[thoff] not in ICMP_ERRORS:
        return None
    return ip_flow(head, thoff + 8)


def details_flow(details: Mapping[str, object]) -> Flow | None:
    """The flow that a trace event's details name: saddr, sport, daddr, dport."""
    saddr, daddr = details.get("saddr"), details.get("daddr")
    if not isinstance(saddr, bytes) or not isinstance(daddr, bytes):
        return None
    sport, dport = details.get("sport"), details.get("dport")
    if isinstance(sport, int) and isinstance(dport, int):
        return Flow(saddr, sport, daddr, dport)
    return Flow(saddr, NO_PORT, daddr, NO_PORT)


def sock_flow(saddr: bytes, sport: int, daddr: bytes, dport: int) -> Flow | None:
    """The flow of a sock; None where it has neither an address nor a port yet."""
    if not (sport or dport or any(daddr)):
        return None
    return Flow(saddr or bytes(4), sport, daddr or bytes(4), dport)


def named_dest(skb: SkBuff | None, details: Mapping[str, object]) -> tuple[bytes, int] | None:
    """The destination that a request names, in the skb's cb or in the details."""
    if skb is not None and isinstance(skb.cb, UdpSendmsgCb) and skb.cb.addr:
        return skb.cb.addr, skb.cb.port
    daddr, dport = details.get("daddr"), details.get("dport")
    return (daddr, dport) if isinstance(daddr, bytes) and isinstance(dport, int) else None


# ---- looking for one -------------------------------------------------------------------------

End = tuple[str, str]
"""(address, port) as text; "" is any."""


class FlowFilterError(ValueError):
    """The given text is no flow; the error's text says what is one."""


FORMS: Final = (
    ":PORT, ADDRESS, ADDRESS:PORT, or two of them with -> between (10.77.0.1:40112->10.77.0.2:80)"
)


class FlowFilter:
    """Flows that have an end, or both ends, in either direction.

    text: ":80", "10.77.0.1", "10.77.0.1:80", or two of these with "->" between them. Ends are
    compared exactly: ":80" is not ":8090", and "10.77.0.1" is not "10.77.0.10".
    FlowFilterError for any other text.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        ends = text.split("->")
        if len(ends) > 2:
            raise FlowFilterError(f"{text!r} is no flow: it takes {FORMS}")
        self._ends = [_parse_end(end.strip(), text) for end in ends]
        if not any(map(any, self._ends)):
            raise FlowFilterError(f"{text!r} is no flow: it takes {FORMS}")

    def __call__(self, flow: str) -> bool:
        """Does the filter match a flow as text, in the form that lines have?"""
        source, arrow, dest = flow.partition("->")
        if not arrow:
            return False
        ends = _split_end(source), _split_end(dest)
        if len(self._ends) == 1:
            return any(_matches(self._ends[0], end) for end in ends)
        return any(
            _matches(self._ends[0], a) and _matches(self._ends[1], b) for a, b in (ends, ends[::-1])
        )


def _matches(wanted: End, found: End) -> bool:
    return wanted[0] in ("", found[0]) and wanted[1] in ("", found[1])


def _split_end(text: str) -> End:
    """An end of a flow as `Flow` prints it."""
    if text.startswith("["):
        addr, _, port = text[1:].partition("]")
        return addr, port.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    addr, _, port = text.partition(":")
    return addr, port


def _parse_end(text: str, whole: str) -> End:
    addr, port = _split_end(text)
    try:
        if addr:
            addr = str(ip_address(addr))
        if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError(port)
    except ValueError:
        raise FlowFilterError(f"{whole!r} is no flow: it takes {FORMS}") from None
    return addr, str(int(port)) if port else ""  # :080 is :80
