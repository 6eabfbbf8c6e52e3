# SPDX-License-Identifier: MIT
"""Nothing of a script is read and then ignored: it is compared, obeyed, or refused, in words."""

import re
from pathlib import Path

import pytest

from skbus.packetdrill.config import Config, with_options
from skbus.packetdrill.interpreter import run_script
from skbus.packetdrill.parser import parse_script
from skbus.packetdrill.report import Result, Status, show
from skbus.packetdrill.run import run_file
from skbus.packetdrill.script import ScriptError, Unsupported
from skbus.packetdrill.sim import SimBackend
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
UDP = """
0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3
+0 bind(3, ..., ...) = 0
"""


def run(text: str, toy: Toy | None = None) -> Result:
    return run_script(parse_script(text, "toy.pkt"), toy or Toy(), Config())


def passes(text: str, toy: Toy | None = None) -> None:
    result = run(text, toy)
    assert result.status is Status.PASSED, show(result)


def fails(text: str) -> Result:
    result = run(text)
    assert result.status is Status.FAILED, show(result)
    return result


def simulated(tmp_path: Path, text: str) -> Result:
    """A script against the cores."""
    file = tmp_path / "script.pkt"
    file.write_text(text)
    return run_file(file, lambda _: SimBackend(), Config())


# ---- fields ------------------------------------------------------------------------------


def test_the_acknowledgment_counts_also_without_its_flag(tmp_path: Path) -> None:
    script = """
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
+0 connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)
+0 > S 0:0(0) {} <...>
"""
    result = simulated(tmp_path, script.format("ack 777"))
    assert result.status is Status.FAILED
    assert "acknowledgment: expected 777, seen 0" in result.reason
    assert any("> S 0:0(0) ack 777" in line for line in result.details)
    assert simulated(tmp_path, script.format("")).status is Status.PASSED


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("> udp 8080 > 9 (10)", "destination port: expected 9, seen 8080"),
        ("> udp 7 > 8080 (10)", "source port: expected 7, seen 8080"),
        ("> [tos 0x10] udp (10)", "TOS: expected 16, seen 0"),
        ("> [ttl 63] udp (10)", "TTL: expected 63, seen 64"),
    ],
)
def test_ports_and_marks_of_a_datagram_are_compared(tmp_path: Path, line: str, wrong: str) -> None:
    sent = UDP + "+0 sendto(3, ..., 10, 0, ..., ...) = 10\n+0 "
    assert simulated(tmp_path, sent + "> udp 8080 > 8080 (10)").status is Status.PASSED
    assert wrong in simulated(tmp_path, sent + line).reason


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (
            "icmp unreachable port_unreachable [udp (21)]",
            "quoted payload length: expected 21, seen",
        ),
        ("icmp unreachable port_unreachable [1:11(10)]", "ICMP quotes: expected TCP, seen UDP"),
        ("icmp unreachable port_unreachable mtu 9 [udp (20)]", "ICMP MTU: expected 9, seen 0"),
    ],
)
def test_what_an_icmp_error_quotes_is_compared(tmp_path: Path, line: str, wrong: str) -> None:
    sent = UDP + "+0 < udp 5000 > 7 (20)\n+0 > "
    good = simulated(tmp_path, sent + "icmp unreachable port_unreachable [udp (20)]")
    assert good.status is Status.PASSED, show(good)
    assert wrong in simulated(tmp_path, sent + line).reason


def test_ports_of_a_segment_are_compared() -> None:
    passes(HANDSHAKE.replace("> S.", "> 8080 > 40001 S."))
    assert "source port: expected 80" in fails(HANDSHAKE.replace("> S.", "> 80 > 40001 S.")).reason


@pytest.mark.parametrize(
    ("mark", "error"),
    [
        ("[ect0, tos 0x10]", "the ECN field is there twice"),
        ("[ttl 7, ttl 7]", "ttl is there twice"),
        ("[flowlabel 0x1]", "IPv6"),
    ],
)
def test_marks_that_contradict(mark: str, error: str) -> None:
    with pytest.raises((ScriptError, Unsupported), match=error):
        parse_script(HANDSHAKE + f"+0 > {mark} . 1:1(0) ack 1")


def test_a_flag_twice_is_not_another_flag() -> None:
    with pytest.raises(ScriptError, match="twice"):
        parse_script(HANDSHAKE + "+0 > SS 1:1(0)")


def test_a_ttl_of_0_is_one() -> None:
    toy = Toy()
    seen: list[bytes] = []
    inject = toy.inject

    def look(*packets: bytes) -> None:
        seen.extend(packets)
        inject(*packets)

    toy.inject = look  # type: ignore[method-assign]
    run(HANDSHAKE + "+0 < [ttl 0] . 1:1(0) ack 1 win 9", toy)
    assert [packet[8] for packet in seen] == [255, 255, 0]


# ---- calls -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ('write(4, "abc", 3) = 3', "argument 2: takes `...`"),
        ("write(4, ..., 3, 0) = 3", "too many arguments: 4, and takes 3"),
        ("read(4, ...) = 3", "too few arguments: 2, and takes 3"),
        ("writev(4, [{..., 10}], 2) = 10", "has 1 iovecs, not 2"),
        ("poll([{fd=4, events=POLLIN}], 2, 0) = 0", "has 1 pollfds, not 2"),
        ("poll([{fd=4, events=POLLIN, revent=POLLIN}], 1, 0) = 1", "revent is no member"),
        ("poll([{fd=9, events=POLLIN}], 1, 0) = 1", "no descriptor 9"),
        ("sendmsg(4, {msg_iov(2)=[{..., 10}]}, 0) = 10", r"msg_iov\(2\) has 1"),
        ("sendmsg(4, {msg_iov(1)=[{..., 10}], msg_flag=0}, 0) = 10", "msg_flag is no member"),
        ("epoll_ctl(5, EPOLL_CTL_ADD, 4, {event=EPOLLIN}) = 0", "expected an epoll_event"),
        ("read(4, ..., 3) = -1 EGAIN (x)", "unknown error EGAIN"),
        ("connect(4, {sa_family=AF_INET, sin_port=htons(80)}, ...) = 0", "without sin_addr"),
        ("connect(4, {sa_family=AF_INET6, sin6_port=1}, ...) = 0", "IPv6"),
        ("connect(4, ..., 12) = 0", "an address of 12 bytes"),
        ("accept4(4, ..., ..., 0) = 5", "unknown system call"),
    ],
)
def test_arguments_that_nobody_would_look_at(call: str, error: str) -> None:
    try:
        result = run(HANDSHAKE + "+0 epoll_create(1) = 5\n+0 " + call)
    except ScriptError as e:
        result = Result("", Status.ERROR, reason=e.text)
    assert result.status in (Status.ERROR, Status.NOT_APPLICABLE), show(result)
    assert re.search(error, result.reason), result.reason


def test_a_socket_may_be_bound_and_connected_where_the_script_says(tmp_path: Path) -> None:
    listening = HANDSHAKE.replace(
        "bind(3, ..., ...)",
        'bind(3, {sa_family=AF_INET, sin_port=htons(99), sin_addr=inet_addr("0.0.0.0")}, ...)',
    ).replace("> S. 0:0(0) ack 1 <mss 1460>", "> 99 > 40001 S. 0:0(0) ack 1 <...>")
    result = simulated(tmp_path, listening)
    assert result.status is Status.PASSED, show(result)
    result = simulated(
        tmp_path,
        """
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
+0 connect(3, {sa_family=AF_INET, sin_port=htons(99), sin_addr=inet_addr("192.0.2.7")}, ...) = \
-1 EINPROGRESS (Operation now in progress)
+0 > S 0:0(0) <...>
+.1 < S. 0:0(0) ack 1 win 1000 <mss 1000>
+0 > . 1:1(0) ack 1
""",
    )
    assert result.status is Status.PASSED, show(result)


# ---- options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    """--mtu=9 --mtu=x --mss=0 --bind_port=0 --connect_port=70000 --local_ip=1.2.3.999
    --netmask_ip=x --tolerance_usecs=-1 --tolerance_percent=nan --non_fatal=packets
    --non_fatal --no_such=1 --tcp_ts_tick_usecs=x""".split(),
)
def test_options_that_are_wrong(option: str) -> None:
    result = run(f"{option}\n{HANDSHAKE}")
    assert result.status is Status.ERROR
    assert result.reason.startswith(option.partition("=")[0])


@pytest.mark.parametrize(
    "option",
    """--so_filename="x.so" --so_flags=1 --send_omit_free --is_anyip --speed=1000 --psp_udp_port=1
    --wire_client --code_sockopt=TCP_CC_INFO --code_command="/bin/sh" --code_format=text
    --ip_version=ipv6""".split(),
)
def test_options_that_no_such_stack_follows(option: str) -> None:
    result = run(f"{option}\n{HANDSHAKE}")
    assert result.status is Status.NOT_APPLICABLE
    assert option.partition("=")[0] in result.reason


def test_options_that_are_followed(tmp_path: Path) -> None:
    given = with_options(
        Config(),
        {
            "gateway_ip": "10.0.0.9",
            "netmask_ip": "255.255.255.0",
            "code_command": "/usr/bin/python3",
            "code_format": "python",
            "code_sockopt": "SO_MEMINFO",
            "verbose": None,
            "debug": None,
        },
    )
    assert given.addresses.gateway == "10.0.0.9"
    assert given.addresses.prefixlen == 24
    toy = Toy()
    passes("--dry_run\n" + HANDSHAKE.replace("ack 1 <mss 1460>", "ack 9"), toy)
    assert toy.time == 0
    script = tmp_path / "first.sh"
    script.write_text("#!/bin/sh\nsysctl -q net.ipv4.tcp_sack=0\n")
    script.chmod(0o755)
    passes(
        f"--init_scripts={script}\n{HANDSHAKE}".replace(str(script), f'"{script}"'), toy := Toy()
    )
    assert toy.set == {"net.ipv4.tcp_sack": "0"}


# ---- commands ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("sysctl -q net.ipv4.tcp_sak=1", "no such sysctl: net.ipv4.tcp_sak"),
        ("sysctl -q net.ipv4.tcp_sack=2", "outside 0 .. 1"),
        ("sysctl -q net.ipv4.tcp_sack=2 || true", "outside 0 .. 1"),
        ("sysctl -q net.ipv4.tcp_rmem=1", "takes 3 number"),
        ("sysctl -q net.ipv4.tcp_congestion_control=cubik", "no congestion control cubik"),
        ("echo 9 > /proc/sys/net/ipv4/tcp_sack", "outside 0 .. 1"),
        ("ip link set dev tun0 mtu 9", "an MTU is 68 to"),
    ],
)
@pytest.mark.parametrize("where", ["first", "later", "last"])
def test_settings_that_cannot_be(tmp_path: Path, command: str, error: str, where: str) -> None:
    text = {
        "first": f"`{command}`\n{HANDSHAKE}",
        "later": f"{HANDSHAKE}+0 `{command}`\n",
        "last": f"{HANDSHAKE}`{command}`\n",
    }[where].replace("<mss 1460>", "<...>")
    result = simulated(tmp_path, text)
    assert result.status is Status.ERROR, show(result)
    assert error in result.reason


@pytest.mark.parametrize(
    "command",
    [
        "ip addr add 10.0.0.1/8 dev tun0",
        "ip link set dev tun0 down",
        "ip -6 route add default via fe80::1",
        "tc qdisc add dev tun0 root netem delay 10ms",
        "ethtool -K tun0 gro off",
        "iptables -A INPUT -j DROP",
        "netstat -s",
        "sysctl -a",
        "ss -x",
        "ss -t process = 1 | grep -q . || true",
        "echo 1 > /sys/class/net/tun0/tx_queue_len",
    ],
)
def test_commands_without_a_stand_in(command: str) -> None:
    result = run(f"`{command}`\n{HANDSHAKE}")
    assert result.status is Status.NOT_APPLICABLE, show(result)
    assert result.reason


def test_a_script_that_fails_says_why_whatever_its_last_command() -> None:
    result = fails(HANDSHAKE + "+0 write(4, ..., 5) = 6\n`sysctl -q net.ipv4.unknown=1`")
    assert "expected 6" in result.reason


def test_sysctls_are_read() -> None:
    passes(
        '`test "$(sysctl -n net.ipv4.tcp_sack)" = 1 &&'
        ' test "$(sysctl net/ipv4/tcp_sack)" = "net.ipv4.tcp_sack = 1" &&'
        " grep -q '^4096.131072' /proc/sys/net/ipv4/tcp_rmem &&"
        " ! sysctl -n net.ipv4.unknown 2> /dev/null`" + HANDSHAKE
    )


def test_what_a_command_writes_is_set_each_time() -> None:
    for before in ("1", "0"):
        toy = Toy(set={"net.ipv4.tcp_sack": before})
        passes(
            "`cat /proc/sys/net/ipv4/tcp_sack; echo 1 > /proc/sys/net/ipv4/tcp_sack`" + HANDSHAKE,
            toy,
        )
        assert toy.set["net.ipv4.tcp_sack"] == "1"


def test_queues_and_links_that_change_nothing() -> None:
    passes(
        "`tc qdisc del dev tun0 root 2> /dev/null; tc qdisc add dev tun0 root pfifo\n"
        "tc qdisc replace dev tun0 root fq; ip link set tun0 up; modprobe tcp_dctcp\n"
        "ethtool -K tun0 tso off gso off; ip link set dev tun0 mtu 1400`" + HANDSHAKE,
        toy := Toy(),
    )
    assert toy.set["mtu"] == "1400"


def test_ss_has_the_columns_of_iproute2(tmp_path: Path) -> None:
    result = simulated(
        tmp_path,
        HANDSHAKE.replace("<mss 1460>", "<...>")
        + """
+0 < P. 1:11(10) ack 1 win 1000
+0 > . 1:1(0) ack 11
+0 `ss -tn | grep -q '^ESTAB 10  *0  *192.168.0.1:8080  *192.0.2.1:40001'`
+0 `ss -Htln | awk '{ exit $1 != "LISTEN" || $3 != 1 || $4 !~ /:8080$/ }'`
+0 `test "$(ss -Htan | wc -l)" = 2`
+0 `ss -tin dst 192.0.2.1 and sport = :8080 | grep -q ' cubic .* cwnd:10 .*bytes_received:10'`
+0 `ss -tnm state established | grep -q 'skmem:(r10,rb131072,'`
+0 `ss -tn state time-wait | wc -l | grep -q '^1$'`
+0 `ss -tn '( dport = :40001 or dport = :9 )' | grep -q ESTAB`
+0 `! ss -tn not dport 40001 | grep -q ESTAB`
+0 `ss -tne | grep -q ' ino:[0-9]* sk:'`
+0 close(4) = 0
+0 > R. 1:1(0) ack 11
+0 `test "$(ss -Htan | wc -l)" = 1`
""",
    )
    assert result.status is Status.PASSED, show(result)


def test_ss_shows_a_timer(tmp_path: Path) -> None:
    text = (
        HANDSHAKE.replace("<mss 1460>", "<...>")
        + """
+0 write(4, ..., 100) = 100
+0 > P. 1:101(100) ack 1
+0 `ss -tno | grep -q '^ESTAB 0  *100 .*timer:(on,[0-9]*ms,0)'`
+0 `ss -tin | grep -q ' unacked:1'`
"""
    )
    result = simulated(tmp_path, text)
    assert result.status is Status.PASSED, show(result)


def test_a_long_segment_arrives_in_pieces() -> None:
    toy = Toy()
    bursts: list[int] = []
    inject = toy.inject

    def look(*packets: bytes) -> None:
        bursts.append(len(packets))
        inject(*packets)

    toy.inject = look  # type: ignore[method-assign]
    passes("--mss=100\n" + HANDSHAKE + "+0 < P. 1:251(250) ack 1 win 9\n+0 > . 1:1(0) ack 101", toy)
    assert bursts == [1, 1, 3]
    assert len(toy.received) == 250
    assert toy.time == 100 * MS
