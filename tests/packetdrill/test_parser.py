# SPDX-License-Identifier: MIT
"""The parser of packetdrill's language."""

import pytest

from skbus.packetdrill.parser import parse_script
from skbus.packetdrill.script import (
    Array,
    Call,
    Code,
    Command,
    Ellipsis_,
    EventTime,
    IcmpPacket,
    Int,
    Or,
    ScriptError,
    Str,
    Struct,
    SysCall,
    TcpOption,
    TcpPacket,
    TimeKind,
    UdpPacket,
    Unsupported,
    Word,
)

MS = 1_000_000


def one(text: str) -> object:
    """The action of a script of one event."""
    events = parse_script(text).events
    assert len(events) == 1
    return events[0].action


def tcp(text: str) -> TcpPacket:
    packet = one("0 " + text)
    assert isinstance(packet, TcpPacket)
    return packet


def call(text: str) -> SysCall:
    action = one("0 " + text)
    assert isinstance(action, SysCall)
    return action


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0", EventTime(TimeKind.ABSOLUTE, 0)),
        ("1.5", EventTime(TimeKind.ABSOLUTE, 1500 * MS)),
        ("+.01", EventTime(TimeKind.RELATIVE, 10 * MS)),
        ("+0.0001", EventTime(TimeKind.RELATIVE, 100_000)),
        ("*", EventTime(TimeKind.ANY)),
        (".1~.2", EventTime(TimeKind.ABSOLUTE, 100 * MS, 200 * MS)),
        ("+.3~+.4", EventTime(TimeKind.RELATIVE, 300 * MS, 400 * MS)),
    ],
)
def test_times(text: str, time: EventTime) -> None:
    assert parse_script(f"{text} > . 1:1(0) ack 1").events[0].time == time


def test_a_range_is_for_outbound_packets() -> None:
    with pytest.raises(ScriptError, match="outbound"):
        parse_script("+.3~+.4 < . 1:1(0) ack 1 win 100")
    with pytest.raises(ScriptError, match="outbound"):
        parse_script("* close(3) = 0")
    with pytest.raises(ScriptError, match="ends before"):
        parse_script(".3~.1 > . 1:1(0) ack 1")


def test_syn_with_all_options() -> None:
    packet = tcp("< S 0:0(0) win 32792 <mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7>")
    assert packet.inbound
    assert (packet.flags, packet.window) == ("S", 32792)
    assert packet.options == (
        TcpOption(2, b"\x05\xb4"),
        TcpOption(4),
        TcpOption(8, b"", (7, 0)),
        TcpOption(1),
        TcpOption(3, b"\x07"),
    )


def test_sack_fast_open_md5_and_accecn_options() -> None:
    assert tcp("> . 1:1(0) ack 1 <nop,nop,sack 5:9 1:2>").options == (
        TcpOption(1),
        TcpOption(1),
        TcpOption(5, b"", (5, 9, 1, 2)),
    )
    assert tcp("> S 0:0(0) <FO 0011223344556677,nop,nop>").options == (
        TcpOption(34, bytes.fromhex("0011223344556677")),
        TcpOption(1),
        TcpOption(1),
    )
    assert tcp("> S 0:0(0) <FOEXP>").options == (TcpOption(254, b"\xf9\x89"),)
    md5 = tcp("> . 1:1(0) ack 1 <nop,nop,md5 000102030405060708090a0b0c0d0e0f>").options
    assert md5 is not None
    assert md5[2] == TcpOption(19, bytes(range(16)))
    assert tcp("> . 1:1(0) ack 1 <ECN e0b 1 ceb 0 e1b 2,nop>").options == (
        TcpOption(172, b"\0\0\1\0\0\0\0\0\2"),
        TcpOption(1),
    )


def test_options_that_are_not_checked() -> None:
    assert tcp("> . 1:1(0) ack 1 <...>").options is None
    with pytest.raises(ScriptError, match="outbound"):
        tcp("< . 1:1(0) ack 1 win 9 <...>")


@pytest.mark.parametrize(
    ("text", "flags", "ace"),
    [
        ("> .", ".", None),
        ("> FP.", "FP.", None),
        ("> -", "", None),
        ("> SEW", "SEW", None),
        ("> R", "R", None),
        ("> P.5", "P.", 5),
        ("> .3", ".", 3),
        ("> .0", ".", None),
    ],
)
def test_flags(text: str, flags: str, ace: int | None) -> None:
    packet = tcp(f"{text} 1:1(0)")
    assert (packet.flags, packet.ace) == (flags, ace)


@pytest.mark.parametrize("text", ["> X 1:1(0)", "> .12 1:1(0)", "> E.1 1:1(0)", "> 1:1(0)"])
def test_flags_that_are_none(text: str) -> None:
    with pytest.raises(ScriptError, match="flags"):
        tcp(text)


def test_ip_marks_ports_urgent() -> None:
    packet = tcp("> [ect0] P. 1:1001(1000) ack 1 win 5 urg 3")
    assert (packet.ip.ecn, packet.urgent) == (2, 3)
    assert tcp("< (ttl 3) 7 > 9 . 1:1(0) ack 1 win 1").ip.ttl == 3
    assert tcp("> [tos 0x10] . 1:1(0) ack 1").ip.tos == 16
    assert tcp("> [ect01] . 1:1(0) ack 1").ip.ect01
    ports = tcp("> 12 > 34 . 1:1(0) ack 1").ports
    assert ports is not None
    assert (ports.source, ports.dest) == (12, 34)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0 < . 1:2(2) ack 1 win 1", "does not add up"),
        ("0 < . 1:1(0) ack 1", "needs its window"),
        ("0 > . 1:1(0) ack 1 <nop>", "not a multiple of 4"),
        ("0 > . 1:1(0) ack 1 <nap>", "expected a TCP option"),
        ("0 > . 1:1(0) ack 4294967296", "may be 0 to"),
        ("0 close(3 = 0", "expected"),
        ("0 `never closed", "never closed"),
        ("-1 close(3) = 0", "negative"),
        ("0 close(3) = 0 `a` 1 close(3) = 0", "expected a time"),
        ("", "at least one event"),
    ],
)
def test_errors_name_what_and_where(text: str, error: str) -> None:
    with pytest.raises(ScriptError, match=rf"a\.pkt:2: .*{error}"):
        parse_script("\n" + text, "a.pkt")


def test_udp_and_icmp() -> None:
    udp = one("0 > udp (1000)")
    assert isinstance(udp, UdpPacket)
    assert udp.length == 1000
    icmp = one("0 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]")
    assert isinstance(icmp, IcmpPacket)
    assert (icmp.type, icmp.code, icmp.mtu) == (3, 4, 1200)
    assert icmp.echoed == ("tcp", 1, 1460)
    icmp = one("0 > icmp echo_request code_0 id 7 [raw (8)]")
    assert isinstance(icmp, IcmpPacket)
    assert (icmp.type, icmp.echo_id, icmp.echoed.protocol) == (8, 7, "raw")


def test_what_is_no_ipv4() -> None:
    with pytest.raises(Unsupported, match="ICMPv6"):
        one("0 < icmp packet_too_big mtu 1280 [1:1(0)]")
    with pytest.raises(Unsupported, match="encapsulation"):
        one("0 < gre: . 1:1(0) ack 1 win 1")


def test_system_calls() -> None:
    action = call("socket(..., SOCK_STREAM, IPPROTO_TCP) = 3")
    assert action.args == (Ellipsis_(), Word("SOCK_STREAM"), Word("IPPROTO_TCP"))
    assert action.result == Int(3)
    action = call("read(3, ..., 0x10) = -1 EAGAIN (Resource temporarily unavailable)")
    assert (action.result, action.errno) == (Int(-1), "EAGAIN")
    action = call("fcntl(3, F_GETFL) = 0x2 (flags O_RDWR)")
    assert (action.result, action.errno) == (Int(2), None)
    action = call("...0.2 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0")
    assert action.args[2] == Or(Word("O_RDWR"), Word("O_NONBLOCK"))
    assert action.end == 200 * MS


def test_structures() -> None:
    action = call(
        "recvmsg(3, {msg_name(...)=..., msg_iov(2)=[{..., 10}, {..., 20}], msg_flags=0,"
        " msg_control=[{cmsg_level=SOL_TCP, cmsg_type=TCP_CM_INQ, cmsg_data=9}]}, 0) = 5"
    )
    msg = action.args[1]
    assert isinstance(msg, Struct)
    assert set(msg.fields) == {"msg_name", "msg_iov", "msg_flags", "msg_control"}
    iov = msg.fields["msg_iov"]
    assert iov == Array((Struct({}, (Ellipsis_(), Int(10))), Struct({}, (Ellipsis_(), Int(20)))))
    action = call('bind(3, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("1.2.3.4")},'
                  " 16) = 0")  # fmt: skip
    address = action.args[1]
    assert isinstance(address, Struct)
    assert address.fields["sin_port"] == Call("htons", (Int(9),))
    assert address.fields["sin_addr"] == Call("inet_addr", (Str(b"1.2.3.4"),))


def test_strings() -> None:
    action = call(r'setsockopt(3, SOL_TCP, TCP_CONGESTION, "re" "no\x00\n", 4) = 0')
    assert action.args[3] == Str(b"reno\x00\n")
    assert call('write(3, "ab"..., 4) = 4').args[1] == Str(b"ab", True)


def test_code_commands_comments_options() -> None:
    script = parse_script(
        """--tolerance_usecs=7000
--local_ip=10.0.0.1 --strict_segments
--define=PORT=0x50
--define=CC="reno"
// a comment
`sysctl -q a=1
 b`
0 listen(3, PORT) = 0 /* another
one */
+0 %{ assert tcpi_rto == 1
x = {1: 2} }%
+1 `tc x`
+0 setsockopt(3, CC, ME, 1, 1) = 0
`end`""",
        defines={"ME": "YOU"},
    )
    assert script.options == {
        "tolerance_usecs": "7000",
        "local_ip": "10.0.0.1",
        "strict_segments": None,
        "define": "CC=reno",
    }
    assert script.init == Command("sysctl -q a=1\n b")
    assert script.cleanup == Command("end")
    assert [e.line for e in script.events] == [8, 10, 12, 13]
    first, code, command, last = (e.action for e in script.events)
    assert isinstance(first, SysCall)
    assert first.args[1] == Int(80)
    assert code == Code("assert tcpi_rto == 1\nx = {1: 2}")
    assert command == Command("tc x")
    assert isinstance(last, SysCall)
    assert last.args[1:3] == (Str(b"reno"), Word("YOU"))


def test_the_text_of_an_event_is_kept_on_one_line() -> None:
    script = parse_script("0 close(\n  3) = 0\n+.1   > . 1:1(0)  ack 1\n")
    assert [e.text for e in script.events] == ["0 close( 3) = 0", "+.1 > . 1:1(0) ack 1"]
