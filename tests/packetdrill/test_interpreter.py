# SPDX-License-Identifier: MIT
"""The interpreter, against a stack that does what we tell it."""

from pathlib import Path

import pytest

from skbus.packetdrill.config import Config
from skbus.packetdrill.flow import pattern
from skbus.packetdrill.interpreter import run_script
from skbus.packetdrill.parser import parse_script
from skbus.packetdrill.report import Result, Status, as_json, as_junit, show, summary
from skbus.packetdrill.toystack import MS, Toy

HANDSHAKE = """
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 1000 <mss 1000>
+0 > S. 0:0(0) ack 1 <mss 1460>
+.1 < . 1:1(0) ack 1 win 1000
+0 accept(3, ..., ...) = 4
"""


def run(text: str, toy: Toy | None = None, config: Config | None = None) -> Result:
    return run_script(parse_script(text, "toy.pkt"), toy or Toy(), config or Config())


def passes(text: str, toy: Toy | None = None, config: Config | None = None) -> Result:
    result = run(text, toy, config)
    assert result.status is Status.PASSED, show(result)
    return result


def fails(text: str, toy: Toy | None = None, config: Config | None = None) -> Result:
    result = run(text, toy, config)
    assert result.status is Status.FAILED, show(result)
    return result


def test_data_both_ways_and_a_sequence_number_that_wraps() -> None:
    toy = Toy()
    result = passes(
        HANDSHAKE
        + """
+.1 write(4, ..., 600) = 600
+0 > P. 1:601(600) ack 1 win 100
+.1 < P. 1:301(300) ack 601 win 1000
+0 > . 601:601(0) ack 301
+0 read(4, ..., 1000) = 300
+0 read(4, ..., 1000) = -1 EAGAIN (Resource temporarily unavailable)
""",
        toy,
    )
    assert toy.closed
    assert result.duration == 300 * MS
    assert [h.text for h in result.history if h.text.startswith(">")] == [
        "> S. 0:0(0) ack 1 win 100 <mss 1460>",
        "> P. 1:601(600) ack 1 win 100",
        "> . 601:601(0) ack 301 win 100",
    ]


def test_a_super_segment_may_come_in_pieces() -> None:
    passes(HANDSHAKE + "+0 write(4, ..., 2500) = 2500\n+0 > P. 1:2501(2500) ack 1")
    result = fails(
        HANDSHAKE + "+0 write(4, ..., 2500) = 2500\n+0 > P. 1:2501(2500) ack 1",
        config=Config(strict_segments=True),
    )
    assert "payload length: expected 2500, seen 1000" in " ".join([result.reason, *result.details])


def test_pieces_that_do_not_fit_together() -> None:
    toy = Toy()
    result = fails(
        HANDSHAKE
        + """
+0 write(4, ..., 500) = 500
+0 < P. 1:2(1) ack 1 win 100
+0 write(4, ..., 600) = 600
+0 > P. 1:1101(1100) ack 1
""",
        toy,
    )
    assert result.reason == "the segments do not add up to the one that was expected"
    assert any("> P. 1:501(500) ack 1" in d for d in result.details)


def test_a_mismatch_shows_expected_and_seen_and_every_difference() -> None:
    result = fails(
        HANDSHAKE + "+0 write(4, ..., 500) = 500\n+0 > F. 1:501(500) ack 2 win 99",
        Toy(flags="U."),
    )
    assert result.line == 10
    assert result.event == "+0 > F. 1:501(500) ack 2 win 99"
    assert result.reason == "not the packet that was expected: flags: expected F., seen U."
    assert result.details == [
        "acknowledgment: expected 2, seen 1",
        "window: expected 99, seen 100",
        "expected      0.100000  > F. 1:501(500) ack 2 win 99",
        "seen          0.100000  > U. 1:501(500) ack 1 win 100",
    ]
    text = show(result)
    assert text.startswith("FAIL toy.pkt:10: not the packet")
    assert "    7     0.100000  < . 1:1(0) ack 1 win 1000" in text


def test_options_and_their_order_count() -> None:
    syn = HANDSHAKE.replace("ack 1 <mss 1460>", "ack 1 <mss 1400>")
    assert "TCP option: expected mss 1400, seen mss 1460" in fails(syn).reason
    syn = HANDSHAKE.replace("ack 1 <mss 1460>", "ack 1")
    assert "TCP options: expected none, seen <mss 1460>" in fails(syn).reason
    passes(HANDSHAKE.replace("ack 1 <mss 1460>", "ack 1 <...>"))


def test_times() -> None:
    text = HANDSHAKE + "+0 write(4, ..., 500) = 500\n"
    late = Toy(delay=20 * MS)
    result = fails(text + "+0 > P. 1:501(500) ack 1", late)
    assert "late" in result.reason
    assert result.line == 6
    slow = text.replace("+0 > S.", "+.02 > S.")
    passes(slow + "+.02 > P. 1:501(500) ack 1", Toy(delay=20 * MS))
    passes(slow + "+.01~+.03 > P. 1:501(500) ack 1", Toy(delay=20 * MS))
    passes(slow + "* > P. 1:501(500) ack 1", Toy(delay=20 * MS))
    early = fails(slow + "+.06 > P. 1:501(500) ack 1", Toy(delay=20 * MS))
    assert "early: expected at 0.180000, seen at 0.140000" in early.reason
    assert "late" in fails(slow + "+.001~+.01 > P. 1:501(500) ack 1", Toy(delay=20 * MS)).reason


def test_the_tolerance_grows_with_the_time_between_events() -> None:
    text = HANDSHAKE.replace("+0 > S.", "+.2 > S.")
    passes(text, Toy(delay=220 * MS))
    fails(text, Toy(delay=230 * MS))
    fails(text, Toy(delay=220 * MS), Config(tolerance_percent=0))


def test_what_never_comes() -> None:
    result = fails(HANDSHAKE + "+0 > . 1:1(0) ack 9")
    assert result.reason == "the packet did not come"
    assert result.details[1] == "seen      nothing until 2.100000"


def test_what_the_script_does_not_list() -> None:
    text = HANDSHAKE + "+0 write(4, ..., 500) = 500\n"
    passes(text)
    result = fails(text, config=Config(strict_end=True))
    assert result.reason == "packets that the script does not list"
    assert "> P. 1:501(500) ack 1 win 100" in result.details[0]


def test_results_of_system_calls() -> None:
    assert "expected 400, returned 500" in fails(HANDSHAKE + "+0 write(4, ..., 500) = 400").reason
    result = fails(HANDSHAKE + "+0 read(4, ..., 500) = -1 EPIPE (Broken pipe)")
    assert "expected -1 EPIPE (Broken pipe), returned -1 EAGAIN" in result.reason
    passes(HANDSHAKE + "+0 getsockopt(4, SOL_TCP, TCP_MAXSEG, [5], [4]) = 0")
    result = fails(HANDSHAKE + "+0 getsockopt(4, SOL_TCP, TCP_MAXSEG, [6], [4]) = 0")
    assert "expected [6], got [5]" in result.reason


def test_blocking_calls_return_in_time() -> None:
    poll = "+0...{} poll([{{fd=4, events=POLLIN, revents=POLLIN}}], 1, 1000) = 1\n"
    rest = "+.01 < P. 1:301(300) ack 1 win 1000\n+0 > . 1:1(0) ack 301\n+.1 close(4) = 0"
    passes(HANDSHAKE + poll.format(0.02) + rest)
    result = fails(HANDSHAKE + poll.format(0.06) + rest)
    assert result.line == 9
    assert "returned at 0.120000, expected 0.160000" in result.reason
    assert (
        "expected revents ['0x4']"
        in fails(
            HANDSHAKE + poll.format(0.02).replace("revents=POLLIN", "revents=POLLOUT") + rest
        ).reason
    )


def test_bytes_that_are_not_those_written() -> None:
    result = fails(
        HANDSHAKE + "+0 write(4, ..., 500) = 500\n+0 > P. 1:501(500) ack 1", Toy(corrupt=True)
    )
    assert "payload byte 0 is 0x1, not 0x0" in result.reason


def test_time_stamps_are_mapped() -> None:
    text = HANDSHAKE.replace("<mss 1000>", "<mss 1000,nop,nop,TS val 7 ecr 0>")
    text = text.replace("<mss 1460>", "<mss 1460,nop,nop,TS val 100 ecr 7>")
    text = text.replace("ack 1 win 1000", "ack 1 win 1000 <nop,nop,TS val 8 ecr 100>")
    toy = Toy()
    result = passes(text, toy)
    assert result.history[4].text.endswith("<mss 1460,nop,nop,TS val 100 ecr 7>")
    result = run(text.replace("ecr 100>", "ecr 101>"))
    assert result.status is Status.ERROR
    assert "ecr 101: no outbound segment" in result.reason
    passes(text.replace("ecr 100>", "ecr 101>"), config=Config(ts_ecr_scaled=True))


def test_code_sees_tcp_info() -> None:
    passes(HANDSHAKE + "+0 %{ assert tcpi_state == 0\nseen = tcpi_rto }%\n"
           "+0 %{ assert seen == 0x0b0a0908 }%")  # fmt: skip
    result = fails(HANDSHAKE + "+0 %{\nassert tcpi_state == 0\nassert tcpi_ca_state == 7, 1\n}%")
    assert "assert tcpi_ca_state == 7, 1 [tcpi_ca_state = 1]" in result.reason
    assert "NameError" in fails(HANDSHAKE + "+0 %{ nonsense }%").reason


def test_commands_set_sysctls() -> None:
    toy = Toy()
    result = passes(
        "`sysctl -q net.ipv4.tcp_sack=0 net/ipv4/tcp_ecn=$((1+1))\n"
        'echo "1 2  3" > /proc/sys/net/ipv4/tcp_rmem\n'
        "../common/set_sysctls.py /proc/sys/net/ipv4/tcp_wmem='4 5 6'\n"
        "tc qdisc add dev tun0 root pfifo`" + HANDSHAKE + "+0 `nstat | grep -q TcpExtToy`\n"
        "+0 `grep ' 0A ' /proc/net/tcp | grep -q ':1F90'`\n"
        "`/tmp/sysctl_restore_${PPID}.sh; sysctl -q net.ipv4.tcp_sack=1`",
        toy,
    )
    assert toy.set == {
        "net.ipv4.tcp_sack": "1",
        "net.ipv4.tcp_ecn": "2",
        "net.ipv4.tcp_rmem": "1 2  3",
        "net.ipv4.tcp_wmem": "4 5 6",
    }
    assert not result.warnings
    assert "status 1" in fails(HANDSHAKE + "+0 `nstat | grep TcpExtOther`").reason


@pytest.mark.parametrize(
    "text",
    [
        "0 splice(3, NULL, 4, NULL, 5, 6) = 1",
        HANDSHAKE + "+0 setsockopt(4, SOL_SOCKET, SO_ZEROCOPY, [1], 4) = 0",
        HANDSHAKE + "+0 send(4, ..., 10, MSG_ZEROCOPY) = 10",
        "`ip route change 192.0.2.1 via 192.168.0.2 dev tun0 advmss 600`" + HANDSHAKE,
        "--ip_version=ipv6\n" + HANDSHAKE,
    ],
)
def test_what_does_not_apply(text: str) -> None:
    result = run(text)
    assert result.status is Status.NOT_APPLICABLE
    assert result.reason


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0 frobnicate(3) = 0", "unknown system call"),
        ("0 close(7) = 0", "no descriptor 7"),
        ("0 socket(..., SOCK_WRONG, 0) = 3", "unknown symbol SOCK_WRONG"),
        ("1 socket(..., SOCK_STREAM, 0) = 3", "first event"),
        ("0 > . 1:1(0) ack 1", "no socket"),
        ("--no_such_option=1\n0 close(3) = 0", "no such option"),
    ],
)
def test_scripts_that_are_wrong(text: str, error: str) -> None:
    result = run(text)
    assert result.status is Status.ERROR
    assert error in result.reason


def test_non_fatal_differences_are_noted() -> None:
    text = HANDSHAKE.replace("ack 1 <mss 1460>", "ack 1 <mss 1400>")
    result = passes("--non_fatal=packet,syscall\n" + text + "+0 write(4, ..., 5) = 6")
    assert len(result.warnings) == 2


def test_epoll_levels_edges_and_one_shots() -> None:
    text = (
        HANDSHAKE
        + """
+0 epoll_create(1) = 5
+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLIN, fd=4}) = 0
+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLIN, fd=4}) = -1 EEXIST (File exists)
+0...0.001 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 1
+.1 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 1
+0 epoll_ctl(5, EPOLL_CTL_MOD, 4, {events=EPOLLIN|EPOLLET, fd=4}) = 0
+0 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 1
+0 epoll_wait(5, {events=0, ptr=0}, 1, 0) = 0
+0 epoll_ctl(5, EPOLL_CTL_MOD, 4, {events=EPOLLIN|EPOLLONESHOT, fd=4}) = 0
+0 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 1
+0 epoll_wait(5, {events=0, ptr=0}, 1, 0) = 0
+0 epoll_ctl(5, EPOLL_CTL_DEL, 4, {events=0, fd=4}) = 0
+0 close(5) = 0
"""
    )
    toy = Toy()
    call = toy.call

    def polled(name: str, *args: object, data: bytes = b"") -> object:
        done = call(name, *args, data=data)
        if name == "poll":
            done.due = toy.time  # type: ignore[attr-defined]
        return done

    toy.call = polled  # type: ignore[method-assign, assignment]
    passes(text, toy)


def test_reports_for_machines(tmp_path: Path) -> None:
    results = [passes(HANDSHAKE), fails(HANDSHAKE + "+0 write(4, ..., 5) = 6"), run("0 x() = 1")]
    assert '"status": "failed"' in as_json(results)
    xml = as_junit(results)
    assert 'tests="3" failures="1" errors="1" skipped="0"' in xml
    assert "&lt;" in xml or "expected 6, returned 5" in xml
    assert summary(results).startswith("1 passed, 1 failed, 1 error in ")


def test_the_pattern_is_the_same_however_it_is_cut() -> None:
    whole = pattern(0, 200_000)
    assert len(whole) == 200_000
    assert pattern(70_001, 3) == whole[70_001:70_004]
    assert pattern(65_000, 70_000) == whole[65_000:135_000]
