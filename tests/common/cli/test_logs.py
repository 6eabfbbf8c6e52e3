# SPDX-License-Identifier: MIT
"""`skbus logs`: what it chooses, in which order, how it follows, and what it says of nothing."""

import json
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from skbus.bus.rundir import RunDir
from skbus.core.flow_dissector import FlowFilter
from skbus.stack import logread

BIN = Path(sys.executable).parent

NOW = datetime(2026, 11, 30, 13, 36, 25, tzinfo=UTC)
FLOW = "10.77.0.1:1->10.77.0.2:80"


class Skbus(Protocol):
    """Runs a command in this process (conftest.py)."""

    def __call__(self, *argv: str, env: dict[str, str] | None = None) -> Any: ...


def line(at: float, process: str, event: str, level: str = "debug", **more: Any) -> str:
    """A line as a process writes it, `at` seconds after NOW."""
    wall = (NOW + timedelta(seconds=at)).isoformat(timespec="microseconds")
    layer = process.split(".")[0]
    common = {"time": at, "level": level, "wall": wall, "process": process, "layer": layer}
    return json.dumps({**common, "event": event, **more}) + "\n"


@pytest.fixture
def logged(run: RunDir) -> RunDir:
    """Five processes' lines; ip's are in its former file, and tcp's end in a half one."""
    run.create()
    packet = {"skb": "a1", "flow": FLOW}
    run.log_file("nic.eth0").write_text(
        line(1.0, "nic.eth0", "napi_gro_receive", **packet)
        + line(4.0, "nic.eth0", "dev_queue_xmit", skb="b2", flow="10.77.0.2:80->10.77.0.1:1")
        + line(4.5, "nic.eth0", "dev_queue_xmit", skb="c3", flow="10.77.0.2:8090->10.77.0.1:1")
    )
    run.log_file("tcp").write_text(
        line(3.0, "tcp", "tcp_v4_rcv", **packet)
        + line(5.0, "tcp", "tcp_memory", "warning", pages=3)
        + '{"half a line'
    )
    Path(f"{run.log_file('ip')}.1").write_text(line(2.0, "ip", "ip_rcv", **packet))
    run.log_file("ip").write_text("")
    return run


def events(done: Any) -> list[str]:
    return [json.loads(text)["event"] for text in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "napi_gro_receive ip_rcv tcp_v4_rcv dev_queue_xmit dev_queue_xmit tcp_memory"),
        (["--skb", "a1"], "napi_gro_receive ip_rcv tcp_v4_rcv"),
        (["--skb", "0x00A1"], "napi_gro_receive ip_rcv tcp_v4_rcv"),
        (["--layer", "tcp"], "tcp_v4_rcv tcp_memory"),
        (["-l", "nic", "-l", "ip"], "napi_gro_receive ip_rcv dev_queue_xmit dev_queue_xmit"),
        (["-l", "nic.eth0"], "napi_gro_receive dev_queue_xmit dev_queue_xmit"),
        (["--level", "info"], "tcp_memory"),
        (["--flow", ":80"], "napi_gro_receive ip_rcv tcp_v4_rcv dev_queue_xmit"),
        (["--flow", FLOW], "napi_gro_receive ip_rcv tcp_v4_rcv dev_queue_xmit"),
        (["--flow", ":8090"], "dev_queue_xmit"),
        (["--flow", ":80", "-l", "tcp"], "tcp_v4_rcv"),
        (["-n", "2"], "dev_queue_xmit tcp_memory"),
        (["--lines", "2", "--flow", ":80"], "tcp_v4_rcv dev_queue_xmit"),
        (["-n", "1", "--layer", "ip"], "ip_rcv"),
        (["-n", "0"], ""),
        (["--grep", "^tcp_"], "tcp_v4_rcv tcp_memory"),
        (["--grep", "pages=3"], "tcp_memory"),
        (["--since", "2026-11-30T13:36:29.5+00:00"], "dev_queue_xmit tcp_memory"),
        (["--until", "2026-11-30T13:36:27Z"], "napi_gro_receive ip_rcv"),
        (["--since", "2026-11-30T13:36:27Z", "--until", "2026-11-30T13:36:28Z"],
         "ip_rcv tcp_v4_rcv"),
    ],
)  # fmt: skip
def test_logs_are_chosen_and_merged_by_time(
    skbus: Skbus, logged: RunDir, argv: list[str], expected: str
) -> None:
    done = skbus("logs", "--json", *argv, env={"SKBUS_DIR": str(logged.path)})
    assert done.returncode == 0, done.stderr
    assert events(done) == expected.split()
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-l", "sctp"], ["none of 6 lines in ", "no line of sctp; there are lines of: ip (1), "
                          "nic.eth0 (3), tcp (2)"]),
        (["--level", "error"], ["by level there are: 5 debug, 1 warning"]),
        (["--skb", "ff"], ["no skb ff; there are: a1, b2, c3"]),
        (["--flow", ":8"], ["no flow :8; there are: 10.77.0.1:1->10.77.0.2:80, 10.77.0.2:80->"]),
        (["--since", "2026-12-01"], ["the lines are of 2026-11-30T13:36:26", "to 2026-11-30T13:3"]),
        (["--until", "2026-11-01"], ["the lines are of 2026-11-30T13:36:26"]),
        (["--grep", "udp"], ["no function and no KEY=VALUE like udp; there are: dev_queue_xmit"]),
    ],
)  # fmt: skip
def test_silence_is_never_an_answer(
    skbus: Skbus, logged: RunDir, argv: list[str], said: list[str]
) -> None:
    done = skbus("logs", *argv, env={"SKBUS_DIR": str(logged.path)})
    assert done.returncode == 1
    assert done.stdout == ""
    for text in said:
        assert text in done.stderr


def test_where_packets_are_not_logged_it_says_how_they_are(skbus: Skbus, run: RunDir) -> None:
    run.create().log_file("ip").write_text(line(1.0, "ip", "started", "info", pid=7))
    for argv in (["--skb", "a1"], ["--flow", ":80"]):
        done = skbus("logs", *argv, env={"SKBUS_DIR": str(run.path)})
        assert done.returncode == 1
        assert "packets are logged at debug alone: `skbus log-level debug`" in done.stderr


def test_no_log_at_all(skbus: Skbus, run: RunDir) -> None:
    run.create()
    done = skbus("logs", env={"SKBUS_DIR": str(run.path)})
    assert done.returncode == 1
    assert f"no line in {run.log_dir}: is it the right stack? SKBUS_DIR names it" in done.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--level", "loud"], "'loud': it takes debug, info, warning, error"),
        (["--flow", "80"], "'80' is no flow: it takes :PORT, ADDRESS"),
        (["--skb", "x"], "'x': it takes hex digits"),
        (["--since", "soon"], "'soon' is no time: it takes 10s, 5m"),
        (["--until", "25:00"], "'25:00' is no time"),
        (["--grep", "("], "'(': "),
        (["-n", "-1"], "it takes 0 or more"),
        (["-f", "x.jsonl"], "takes standard input alone"),
    ],
)
def test_mistakes_are_named(skbus: Skbus, logged: RunDir, argv: list[str], said: str) -> None:
    done = skbus("logs", *argv, env={"SKBUS_DIR": str(logged.path)})
    assert done.returncode == 2
    assert said in done.stderr


def test_logs_for_a_person(skbus: Skbus, logged: RunDir) -> None:
    env = {"SKBUS_DIR": str(logged.path)}
    first = skbus("logs", "--skb", "a1", "--stack-time", env=env).stdout.splitlines()[0].split()
    assert first == ["1.000000", "nic.eth0", "napi_gro_receive", "a1", FLOW]
    clock = skbus("logs", "--skb", "a1", env=env).stdout.split()[0]
    wall = (NOW + timedelta(seconds=1)).astimezone()
    assert clock == f"{wall:%H:%M:%S.%f}"


# ---- files and standard input ----------------------------------------------------------------


def piped(text: str, *argv: str) -> Any:
    return subprocess.run(
        [BIN / "skbus", "logs", *argv], input=text, capture_output=True, text=True, check=False
    )


PREFIXED = (
    "nic_1  | " + line(2.0, "nic.eth0", "dev_queue_xmit", skb="a")
    + "tcp_1  | " + line(1.0, "tcp", "tcp_transmit_skb", skb="a")
    + "web_1  | serving http on port 80\n"
    + line(3.0, "ip", "started", "info").rstrip("\n")
)  # fmt: skip


def test_what_containers_print(tmp_path: Path) -> None:
    """`docker-compose logs` with names before the lines or without, in whatever order."""
    done = piped(PREFIXED, "--json", "-")
    assert events(done) == ["tcp_transmit_skb", "dev_queue_xmit", "started"]
    assert done.stderr == "skbus: 1 lines of standard input are none of skbus's\n"
    (tmp_path / "kept").write_text(PREFIXED)
    done = piped("", "--json", "--layer", "tcp", str(tmp_path / "kept"))
    assert events(done) == ["tcp_transmit_skb"]


@pytest.mark.parametrize(
    ("text", "argv", "said"),
    [
        ("", ["-"], "no line in standard input"),
        (PREFIXED, ["--skb", "b", "-"], "no skb b; there are: a"),
        ("", ["/nonexistent"], "cannot read /nonexistent: No such file or directory"),
        ("", ["tcp"], "cannot read tcp: No such file or directory; `-l tcp` is for a layer"),
    ],
)
def test_nothing_in_what_is_piped(text: str, argv: list[str], said: str) -> None:
    done = piped(text, *argv)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_stream_is_shown_as_it_comes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [BIN / "skbus", "logs", "-f", "--json", "--layer", "tcp", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for name in ("one", "two"):
            process.stdin.write("ip_1 | " + line(0.0, "ip", name) + line(0.0, "tcp", name))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["event"] == name
        process.stdin.close()
        assert process.wait() == 0


# ---- following -------------------------------------------------------------------------------


class Following:
    """`skbus logs -f --json` and what it prints."""

    def __init__(self, run: RunDir, *argv: str) -> None:
        self.process = subprocess.Popen(
            [BIN / "skbus", "logs", "-f", "--json", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SKBUS_DIR": str(run.path)},
        )

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def next(self) -> str:
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["event"])

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()


def test_following_begins_with_the_last_lines(logged: RunDir) -> None:
    with Following(logged, "-n", "2") as f:
        assert [f.next(), f.next()] == ["dev_queue_xmit", "tcp_memory"]
        with logged.log_file("udp").open("w") as file:
            text = line(9.0, "udp", "x", "info")
            file.write(text[:20])
            file.flush()
            file.write(text[20:])
        assert f.next() == "x"
        logged.log_file("udp").rename(f"{logged.log_file('udp')}.1")
        logged.log_file("udp").write_text(line(10.0, "udp", "y"))
        assert f.next() == "y"


def test_following_a_flow_knows_the_packets_of_before(logged: RunDir) -> None:
    with Following(logged, "-n", "1", "--flow", ":80") as f:
        assert f.next() == "dev_queue_xmit"
        with logged.log_file("ip").open("a") as file:
            file.write(line(7.0, "ip", "other", skb="c3", flow="10.77.0.2:8090->10.77.0.1:1"))
            file.write(line(8.0, "ip", "later", skb="b2"))
        assert f.next() == "later"


def test_following_since(logged: RunDir) -> None:
    """All since then, also what is in the former file, and what comes."""
    with Following(logged, "--since", "2026-11-30T13:36:27Z") as f:
        its = ["ip_rcv", "tcp_v4_rcv", "dev_queue_xmit", "dev_queue_xmit", "tcp_memory"]
        assert [f.next() for _ in its] == its
        logged.log_file("udp").write_text(line(9.0, "udp", "x"))
        assert f.next() == "x"


def test_following_until_a_moment_ends(logged: RunDir) -> None:
    with Following(logged, "-n", "1", "--until", "2026-11-30T13:36:29Z") as f:
        assert f.next() == "dev_queue_xmit"
        assert f.process.wait() == 0


def test_following_nothing_says_so(logged: RunDir) -> None:
    with Following(logged, "--layer", "udp") as f:
        assert "none of 6 lines" in f.said()
        assert "no line of udp; there are lines of: ip (1), nic.eth0 (3), tcp (2)" in f.said()
        assert f.said() == "waiting for more (Ctrl-C ends it)\n"
        logged.log_file("udp").write_text(line(9.0, "udp", "x"))
        assert f.next() == "x"


def test_following_ends_with_the_stack(logged: RunDir) -> None:
    with Following(logged, "-n", "1") as f:
        assert f.next() == "tcp_memory"
        logged.remove()
        assert f.process.wait() == 0
        assert "has ended" in f.said()


def test_what_is_written_late_is_shown_in_its_place(run: RunDir) -> None:
    """One process writes a little later what happened before what another has written."""
    run.create()
    early, late = run.log_file("ip"), run.log_file("tcp")
    early.write_text("")
    late.write_text("")
    with closing(logread.Follower(run)) as follower, early.open("a") as a, late.open("a") as b:
        a.write(line(1.0, "ip", "first") + line(3.0, "ip", "third"))
        a.flush()
        assert follower.read() == []
        b.write(line(2.0, "tcp", "second"))
        b.flush()
        assert [e["event"] for e in follower.read()] == ["first", "second", "third"]
        assert follower.read() == []


# ---- reading ---------------------------------------------------------------------------------


def test_the_last_lines_of_a_long_log(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from its end, in blocks that cut lines, also beyond the file's beginning."""
    monkeypatch.setattr(logread, "_BLOCK", 100)
    run.create()
    path = run.log_file("ip")
    Path(f"{path}.1").write_text("".join(line(i, "ip", f"e{i}") for i in range(50)))
    path.write_text("".join(line(i, "ip", f"e{i}") for i in range(50, 100)) + '{"half')
    wanted = logread.Filter()
    for count in (1, 3, 50, 51, 99, 100, 1000):
        found = [e["event"] for e in logread.last_of(path, wanted, count)]
        assert found == [f"e{i}" for i in range(max(0, 100 - count), 100)]


def test_fragments_are_found_by_their_datagram() -> None:
    """Later fragments have no ports, and their datagram's are known only after it is whole."""
    texts = [
        line(1.0, "ip", "ip_defrag", skb="f1", flow="10.77.0.1->10.77.0.2"),
        line(2.0, "ip", "ip_defrag", skb="f2", flow="10.77.0.1->10.77.0.2"),
        line(3.0, "ip", "ip_defrag", skb="g1", flow="10.77.0.1->10.77.0.2"),
        line(4.0, "ip", "ip_frag_reasm", skb="f1", fragments=["f1", "f2"]),
        line(5.0, "udp", "udp_rcv", skb="f1", flow="10.77.0.1:5->10.77.0.2:53"),
    ]
    all_events = [e for text in texts if (e := logread.parse(text)) is not None]
    wanted = logread.Filter(flow=FlowFilter(":53"))
    for event in all_events:
        wanted.learn(event)
    assert [e["skb"] for e in filter(wanted, all_events)] == ["f1", "f2", "f1", "f1"]
    one = logread.Filter(skb="f2")
    assert [e["event"] for e in filter(one, all_events)] == ["ip_defrag", "ip_frag_reasm"]


def test_an_icmp_error_is_found_by_what_it_is_about() -> None:
    error = logread.parse(line(1.0, "ip", "icmp_rcv", skb="a", flow="1.2.3.4->10.77.0.2",
                               about="10.77.0.2:7->10.77.0.1:80"))  # fmt: skip
    assert error is not None
    assert logread.Filter(flow=FlowFilter(":80"))(error)
    assert not logread.Filter(flow=FlowFilter(":8"))(error)


LOCAL = NOW.astimezone()


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("10s", NOW - timedelta(seconds=10)),
        ("500ms", NOW - timedelta(milliseconds=500)),
        ("-5m", NOW - timedelta(minutes=5)),
        ("2h ago", NOW - timedelta(hours=2)),
        ("1.5d", NOW - timedelta(hours=36)),
        (f"{LOCAL:%H:%M}", LOCAL.replace(second=0)),
        (f"{LOCAL:%H:%M:%S}", LOCAL),
        (f"{LOCAL + timedelta(seconds=1):%H:%M:%S}", LOCAL + timedelta(seconds=1, days=-1)),
        (f"{LOCAL:%H:%M:%S}.5", LOCAL + timedelta(seconds=0.5, days=-1)),
        ("2026-11-30T13:36:25Z", NOW),
        (f"{LOCAL:%Y-%m-%d %H:%M:%S}", NOW),
    ],
)
def test_moments(text: str, then: datetime) -> None:
    assert logread.parse_when(text, NOW.timestamp()) == pytest.approx(then.timestamp())


@pytest.mark.parametrize("text", ["", "now", "10", "10 weeks", "24:00", "2026-13-01"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(logread.LogReadError, match="is no time: it takes 10s"):
        logread.parse_when(text, NOW.timestamp())


@pytest.mark.parametrize("junk", ["", "{}\n", "[1]\n", "{\n", '{"event": 1}', "x\n", "\0{\n"])
def test_what_is_no_line(junk: str) -> None:
    assert logread.parse(junk) is None
    assert logread.parse(junk.encode()) is None
