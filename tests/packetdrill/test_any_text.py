# SPDX-License-Identifier: MIT
"""Any text is a script, or is refused with a sentence: nothing else comes out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.packetdrill.config import Config
from skbus.packetdrill.interpreter import run_script
from skbus.packetdrill.parser import parse_script
from skbus.packetdrill.report import Status, show
from skbus.packetdrill.script import Script, ScriptError, Unsupported
from skbus.packetdrill.sim import SimBackend

WORDS = st.sampled_from(
    """0 +0 +.1 * ~ + < > = | , ( ) [ ] { } ... : . S. P. F -1 0x10 99999999999 1:2(1) 0:0(0) ack
    win urg <mss 1000> <nop,nop,TS val 1 ecr 0> <sack 1:2> <FO zz> udp icmp unreachable frag_needed
    mtu [ect0] [tos 0x10] [ttl 0] socket bind listen accept connect write read send recv sendto
    sendmsg recvmsg poll setsockopt getsockopt fcntl ioctl close shutdown epoll_create epoll_ctl
    epoll_wait
    3 4 1000 SOCK_STREAM SOL_SOCKET EAGAIN AF_UNSPEC NULL "text" "\\x9" "\\" %{ }% assert ` `true`
    --mss=1000 --tolerance_usecs=x --define=A=B // /* */ {fd=3,events=1} [{...,10}] [1] [5] '
    htons(80) inet_addr("1.2.3.4") 1.2.3.4 ::1 sequence# label""".split()
)
LINES = st.sampled_from(
    [
        "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3", "+0 bind(3, ..., ...) = 0",
        "+0 listen(3, 1) = 0", "+0 < S 0:0(0) win 1000 <mss 1000>",
        "+0 > S. 0:0(0) ack 1 <mss 1460>", "+.1 < . 1:1(0) ack 1 win 1000",
        "+0 accept(3, ..., ...) = 4", "+0 write(4, ..., 100) = 100", "+0 > P. 1:101(100) ack 1",
        "+0 %{ assert tcpi_state == 0 }%", "+0...0.01 poll([{fd=4,events=POLLIN}], 1, 10) = 0",
        "+0 epoll_create(1) = 5", "+0 < icmp unreachable frag_needed mtu 9 [1:2(1)]",
        "+0 connect(3, AF_UNSPEC, ...) = 0", "+0 < udp 1 > 2 (10)",
    ]
)  # fmt: skip
TEXT = st.lists(
    st.one_of(LINES, LINES, st.lists(WORDS, max_size=8).map(" ".join), st.text(max_size=20)),
    max_size=10,
).map("\n".join)


def parsed(text: str) -> Script | str:
    """The script, or why it is none."""
    try:
        return parse_script(text, "any.pkt")
    except (ScriptError, Unsupported) as e:
        return str(e)


@settings(deadline=None, max_examples=200)
@given(TEXT)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    script = parsed(text)
    if isinstance(script, str):
        assert script
    elif "`" not in text:  # its commands are not ours to run
        result = run_script(script, SimBackend(), Config())
        assert result.status in Status
        assert result.reason or result.status is Status.PASSED, show(result)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from("[{"), st.integers(100, 5000))
def test_brackets_have_a_depth(bracket: str, depth: int) -> None:
    assert "deep" in str(parsed(f"0 write(3, {bracket * depth}"))
