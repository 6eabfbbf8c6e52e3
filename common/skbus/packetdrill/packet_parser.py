# SPDX-License-Identifier: MIT
"""The packets of packetdrill's language: TCP, UDP and ICMP, with their IP marks and options."""

import struct
from typing import Final

from skbus.packetdrill.lexer import FLOAT, HEX, INT, PUNCT, WORD, Token
from skbus.packetdrill.script import (
    Echoed,
    IcmpPacket,
    IpInfo,
    Packet,
    Ports,
    ScriptError,
    TcpOption,
    TcpPacket,
    UdpPacket,
    Unsupported,
)

TCPOPT_EOL: Final = 0
TCPOPT_NOP: Final = 1
TCPOPT_MSS: Final = 2
TCPOPT_WINDOW: Final = 3
TCPOPT_SACK_PERM: Final = 4
TCPOPT_SACK: Final = 5
TCPOPT_TIMESTAMP: Final = 8
TCPOPT_MD5SIG: Final = 19
TCPOPT_FASTOPEN: Final = 34
TCPOPT_ACCECN0: Final = 172
TCPOPT_ACCECN1: Final = 174
TCPOPT_EXP: Final = 254
FASTOPEN_MAGIC: Final = b"\xf9\x89"
"""RFC 7413 4.1.1 and RFC 6994: the experimental option's magic"""

MAX_OPTION_BYTES: Final = 40

_ECN: Final = {"noecn": 0, "ect1": 1, "ect0": 2, "ce": 3}

ICMP_TYPES: Final = {
    "echo_reply": 0,
    "unreachable": 3,
    "source_quench": 4,
    "redirect": 5,
    "echo_request": 8,
    "time_exceeded": 11,
    "parameter_problem": 12,
    "timestamp_request": 13,
    "timestamp_reply": 14,
    "information_request": 15,
    "information_reply": 16,
    "address_mask_request": 17,
    "address_mask_reply": 18,
}

ICMP_UNREACH_CODES: Final = {
    "net_unreachable": 0,
    "host_unreachable": 1,
    "protocol_unreachable": 2,
    "port_unreachable": 3,
    "frag_needed": 4,
    "source_route_failed": 5,
    "net_unknown": 6,
    "host_unknown": 7,
    "source_host_isolated": 8,
    "net_prohibited": 9,
    "host_prohibited": 10,
    "net_unreachable_for_tos": 11,
    "host_unreachable_for_tos": 12,
    "packet_filtered": 13,
    "precedence_violation": 14,
    "precedence_cutoff": 15,
}
"""RFC 1122 3.2.2.1, RFC 1812 5.2.7.1"""


_ICMPV6_WORDS: Final = frozenset(
    "packet_too_big no_route admin_prohibited not_neighbour address_unreachable".split()
)


class PacketParser:
    """Tokens, and packets made of them."""

    def __init__(self, text: str, path: str, tokens: list[Token]) -> None:
        self.text = text
        self.path = path
        self._tokens = tokens
        self._at = 0

    # ---- tokens ------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> Token:
        """The next token (-1: the last one taken)."""
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def next(self) -> Token:
        """Take the next token."""
        token = self.peek()
        self._at += 1
        return token

    def take(self, text: str) -> bool:
        """Take the next token if it is this."""
        token = self.peek()
        if token.text != text or token.kind not in (PUNCT, WORD):
            return False
        self._at += 1
        return True

    def expect(self, text: str) -> None:
        """Take the next token, which has to be this."""
        if not self.take(text):
            raise self.error(f"expected {text!r}, not {self.peek().text!r}")

    def number(self, what: str, limit: int) -> int:
        """Take a number of 0 to `limit`."""
        token = self.next()
        if token.kind not in (INT, HEX):
            raise self.error(f"expected {what}, not {token.text!r}", token)
        value = int(token.text, 0 if token.kind == HEX else 10)
        if not 0 <= value <= limit:
            raise self.error(f"{what} is {value}, and may be 0 to {limit}", token)
        return value

    def error(self, text: str, token: Token | None = None) -> ScriptError:
        """An error at a token, or at the next one."""
        return ScriptError(text, self.path, (token or self.peek()).line)

    # ---- packets -----------------------------------------------------------------------

    def packet(self) -> Packet:
        """A packet, beginning with its direction."""
        start = self.peek()
        inbound = self.next().text == "<"
        if self.peek().text in ("ipv4", "ipv6", "gre", "GREv0", "mpls"):
            raise Unsupported(f"{self.path}:{start.line}: encapsulation ({self.peek().text})")
        ip = self._ip_info()
        if inbound and ip.ect01:
            raise self.error("ect01 is for outbound packets", start)
        if self.take("encap"):
            raise Unsupported(f"{self.path}:{start.line}: encapsulation ({self.peek().text})")
        if self.take("icmp"):
            return self._icmp(inbound, ip)
        if self.take("udp"):
            ports = self._ports()
            self.expect("(")
            length = self.number("the UDP payload", 0xFFFF)
            self.expect(")")
            return UdpPacket(inbound, length, ip, ports)
        return self._tcp(inbound, ip)

    def _ip_info(self) -> IpInfo:
        close = {"(": ")", "[": "]"}.get(self.peek().text, "")
        if not close or self.peek(1).kind != WORD:
            return IpInfo()
        self.next()
        info = IpInfo()
        while True:
            token = self.next()
            before = info
            if token.text in _ECN:
                info = info._replace(ecn=_ECN[token.text])
            elif token.text == "ect01":
                info = info._replace(ect01=True)
            elif token.text == "tos":
                info = info._replace(tos=self.number("tos", 0xFF))
            elif token.text == "ttl":
                info = info._replace(ttl=self.number("ttl", 0xFF))
            elif token.text == "flowlabel":
                raise Unsupported(f"{self.path}:{token.line}: IPv6 (flowlabel)")
            else:
                raise self.error(f"expected an IP mark, not {token.text!r}", token)
            if info == before:
                raise self.error(f"{token.text} is there twice", token)
            if (info.tos is not None) + (info.ecn is not None) + info.ect01 > 1:
                raise self.error("the ECN field is there twice: tos has it too", token)
            if not self.take(","):
                self.expect(close)
                return info

    def _ports(self) -> Ports | None:
        if self.peek().kind != INT or self.peek(1).text != ">":
            return None
        source = self.number("a port", 0xFFFF)
        self.expect(">")
        return Ports(source, self.number("a port", 0xFFFF))

    # ---- TCP ---------------------------------------------------------------------------

    def _tcp(self, inbound: bool, ip: IpInfo) -> TcpPacket:
        start = self.peek()
        ports = self._ports()
        flags, ace = self._flags()
        seq, length = self._sequence()
        ack = self.number("an acknowledgment", 0xFFFFFFFF) if self.take("ack") else 0
        window = self.number("a window", 0xFFFF) if self.take("win") else None
        urgent = self.number("an urgent pointer", 0xFFFF) if self.take("urg") else 0
        options = self._options()
        if inbound and window is None:
            raise self.error("an inbound segment needs its window: win N", start)
        if inbound and options is None:
            raise self.error("<...> is for outbound packets", start)
        size = sum(option_size(o) for o in options or ())
        if size % 4 or size > MAX_OPTION_BYTES:
            raise self.error(f"{size} bytes of TCP options: not a multiple of 4 up to 40", start)
        return TcpPacket(inbound, flags, ace, seq, length, ack, window, urgent, options, ip, ports)

    def _flags(self) -> tuple[str, int | None]:
        start = self.peek()
        if self.take("-"):
            return "", None
        flags = ""
        if self.peek().kind == WORD:
            flags = self.next().text
        if self.peek().kind == FLOAT:  # an ACK with the Accurate ECN counter: "P.5"
            flags += self.next().text
        elif self.take("."):
            flags += "."
        if not flags or set(flags) - set(".FSRPEWAU01234567"):
            raise self.error(f"not TCP flags: {flags or self.peek().text!r}", start)
        if len(set(flags)) < len(flags):
            raise self.error(f"a TCP flag is there twice: {flags!r}", start)
        digits = [c for c in flags if c.isdigit()]
        if len(digits) > 1 or (digits and set(flags) & set("EWA")):
            raise self.error(f"conflicting TCP flags: {flags!r}", start)
        plain = "".join(c for c in flags if not c.isdigit())
        # as in the original, a counter of 0 is no counter: the three bits are then plain flags
        return plain, int(digits[0]) or None if digits else None

    def _sequence(self) -> tuple[int, int]:
        start = self.peek()
        seq = self.number("a sequence number", 0xFFFFFFFF)
        self.expect(":")
        end = self.number("a sequence number", 0xFFFFFFFF)
        self.expect("(")
        length = self.number("a payload length", 0xFFFF)
        self.expect(")")
        if end != seq + length:
            raise self.error(f"{seq}:{end}({length}) does not add up", start)
        return seq, length

    def _options(self) -> tuple[TcpOption, ...] | None:
        if not self.take("<"):
            return ()
        if self.take("..."):
            self.expect(">")
            return None
        options = [self._option_of_tcp()]
        while self.take(","):
            options.append(self._option_of_tcp())
        self.expect(">")
        return tuple(options)

    def _option_of_tcp(self) -> TcpOption:
        token = self.next()
        match token.text:
            case "nop":
                return TcpOption(TCPOPT_NOP)
            case "eol":
                return TcpOption(TCPOPT_EOL)
            case "mss":
                return TcpOption(TCPOPT_MSS, struct.pack(">H", self.number("an MSS", 0xFFFF)))
            case "wscale":
                return TcpOption(TCPOPT_WINDOW, bytes([self.number("a window scale", 0xFF)]))
            case "sackOK":
                return TcpOption(TCPOPT_SACK_PERM)
            case "sack":
                return self._sack()
            case "md5":
                return TcpOption(TCPOPT_MD5SIG, self._hex(required=True))
            case "TS":
                self.expect("val")
                val = self.number("a timestamp", 0xFFFFFFFF)
                self.expect("ecr")
                return TcpOption(
                    TCPOPT_TIMESTAMP, b"", (val, self.number("a timestamp", 0xFFFFFFFF))
                )
            case "FO":
                return TcpOption(TCPOPT_FASTOPEN, self._hex())
            case "FOEXP":
                return TcpOption(TCPOPT_EXP, FASTOPEN_MAGIC + self._hex())
            case "ECN":
                return self._accecn()
        raise self.error(f"expected a TCP option, not {token.text!r}", token)

    def _sack(self) -> TcpOption:
        edges: list[int] = []
        while self.peek().kind == INT:
            edges.append(self.number("a SACK edge", 0xFFFFFFFF))
            self.expect(":")
            edges.append(self.number("a SACK edge", 0xFFFFFFFF))
        if not edges:
            raise self.error("a SACK option without a block")
        return TcpOption(TCPOPT_SACK, b"", tuple(edges))

    def _hex(self, required: bool = False) -> bytes:
        if self.peek().kind not in (WORD, INT, HEX):
            if required:
                raise self.error(f"expected hexadecimal digits, not {self.peek().text!r}")
            return b""
        token = self.next()
        try:
            return bytes.fromhex(token.text)
        except ValueError:
            raise self.error(f"not hexadecimal digits: {token.text!r}", token) from None

    def _accecn(self) -> TcpOption:
        """`ECN e0b 1 ceb 0 e1b 1`: three byte counters of 24 bits, in either order."""
        kind = TCPOPT_ACCECN0 if self.peek().text == "e0b" else TCPOPT_ACCECN1
        order = ("e0b", "ceb", "e1b") if kind == TCPOPT_ACCECN0 else ("e1b", "ceb", "e0b")
        body = b""
        for name in order:
            if not self.take(name):
                break
            body += self.number(name, 0xFFFFFF).to_bytes(3, "big")
        if not body:
            raise self.error("expected e0b or e1b")
        return TcpOption(kind, body)

    # ---- ICMP --------------------------------------------------------------------------

    def _icmp(self, inbound: bool, ip: IpInfo) -> IcmpPacket:
        kind = self._icmp_number("type", ICMP_TYPES)
        code = 0
        if self.peek().kind == WORD and self.peek().text not in ("mtu", "id"):
            code = self._icmp_number("code", ICMP_UNREACH_CODES if kind == 3 else {})
        mtu = self.number("an MTU", 0xFFFF) if self.take("mtu") else None
        echo_id = self.number("an echo id", 0xFFFF) if self.take("id") else None
        if mtu is not None and echo_id is not None:
            raise self.error("mtu and id are the same bytes of an ICMP message: take one")
        return IcmpPacket(inbound, kind, code, mtu, echo_id, self._echoed(), ip)

    def _icmp_number(self, what: str, names: dict[str, int]) -> int:
        token = self.next()
        if token.text in names:
            return names[token.text]
        if token.text in _ICMPV6_WORDS:
            raise Unsupported(f"{self.path}:{token.line}: ICMPv6 ({token.text})")
        if token.text.startswith(what + "_") and token.text[len(what) + 1 :].isdigit():
            return int(token.text[len(what) + 1 :]) & 0xFF
        raise self.error(f"not an ICMP {what}: {token.text!r}", token)

    def _echoed(self) -> Echoed:
        if not self.take("["):
            return Echoed()
        if self.peek().text in ("udp", "raw"):
            protocol = self.next().text
            self.expect("(")
            echoed = Echoed(protocol, 0, self.number("a payload length", 0xFFFF))
            self.expect(")")
        else:
            echoed = Echoed("tcp", *self._sequence())
        self.expect("]")
        return echoed


def option_size(option: TcpOption) -> int:
    """Bytes of an option on the wire."""
    if option.kind in (TCPOPT_NOP, TCPOPT_EOL):
        return 1
    return 2 + len(option.body) + 4 * len(option.numbers)
