# SPDX-License-Identifier: MIT
"""`skbus packetdrill` as it is typed: each documented option does what its help says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent
SKBUS = str(Path(sys.executable).with_name("skbus"))
ACTIVE = HERE / "handshake/active.pkt"
LATE = """
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 1000 <mss 1000>
+.003 > S. 0:0(0) ack 1 <...>
"""


def skbus(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [SKBUS, "packetdrill", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return done.returncode, done.stdout, done.stderr


def script(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "script.pkt"
    file.write_text(text)
    return file


@pytest.mark.filterwarnings("ignore:Field type should not be:DeprecationWarning")
def test_each_script_of_the_suite_leaves_a_capture_of_its_own(tmp_path: Path) -> None:
    captures = tmp_path / "pcap"
    code, out, _ = skbus("-q", "--pcap", captures, HERE)
    assert code == 0, out
    scripts = sorted(p.relative_to(HERE).with_suffix(".pcapng") for p in HERE.rglob("*.pkt"))
    assert sorted(p.relative_to(captures) for p in captures.rglob("*.pcapng")) == scripts
    with (captures / "handshake/active.pcapng").open("rb") as f:
        from pcapng import FileScanner

        blocks = list(FileScanner(f))
    names = {b.options["if_name"] for b in blocks if type(b).__name__ == "InterfaceDescription"}
    assert names == {"local.eth0", "wire"}
    assert sum(type(b).__name__ == "EnhancedPacket" for b in blocks) >= 3


def test_captures_of_one_name(tmp_path: Path) -> None:
    code, _, _ = skbus("--pcap", tmp_path, HERE / "udp/too_big.pkt", HERE / "mtu_probe/too_big.pkt",
                       "-q")  # fmt: skip
    assert code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"too_big.pcapng", "too_big-2.pcapng"}


def test_the_seed_is_the_run_s(tmp_path: Path) -> None:
    def capture(*options: object) -> bytes:
        assert skbus("--pcap", tmp_path, ACTIVE, *options)[0] == 0
        return (tmp_path / "active.pcapng").read_bytes()

    plain = capture()
    assert capture("--seed", 0) == plain
    assert capture("--seed", 1) != plain


def test_define(tmp_path: Path) -> None:
    file = script(tmp_path, LATE.replace("+.003", "+0").replace("SOCK_STREAM", "KIND"))
    assert skbus(file)[0] == 2
    assert skbus("-D", "KIND=SOCK_STREAM", file)[0] == 0
    assert skbus("--define", "KIND=SOCK_STREAM", file)[0] == 0
    code, _, err = skbus("-D", "KIN=SOCK_STREAM", file)
    assert (code, err) == (
        2,
        "skbus packetdrill: --define KIN: the script has no symbol of that name\n",
    )
    code, _, err = skbus("-D", "KIND", file)
    assert code == 2
    assert "NAME=VALUE, not KIND" in err


def test_tolerance(tmp_path: Path) -> None:
    file = script(tmp_path, LATE)
    assert skbus(file)[0] == 0
    code, out, _ = skbus("--tolerance-usecs", 1000, file)
    assert code == 1
    assert "came early" in out
    assert skbus("--tolerance-usecs", 1000, script(tmp_path, "--tolerance_usecs=9000\n" + LATE))[0]


def test_a_sysctl_is_set_before_each_script(tmp_path: Path) -> None:
    file = script(tmp_path, '0 `test "$(sysctl -n net.ipv4.tcp_sack)" = 0`')
    assert skbus(file)[0] == 1
    assert skbus("--sysctl", "net.ipv4.tcp_sack=0", file)[0] == 0


@pytest.mark.parametrize(
    "given",
    ["net.ipv4.tcp_sak=1", "net.ipv4.tcp_sack=2", "net.ipv4.tcp_congestion_control=x", "nothing"],
)
def test_a_sysctl_that_cannot_be_is_refused_once(given: str) -> None:
    code, out, err = skbus("--sysctl", given, HERE / "ack")
    assert code == 2
    assert not out
    assert err.count("\n") == 1
    assert given.partition("=")[0] in err


def test_a_congestion_control_of_one_s_own(tmp_path: Path) -> None:
    plugin = tmp_path / "fixed.py"
    plugin.write_text(
        "from skbusd.tcp.tcp_cong import TcpReno\n\n\nclass Mine(TcpReno):\n    name = 'mine'\n"
    )
    file = script(tmp_path, "`sysctl -q net.ipv4.tcp_congestion_control=mine`" + LATE)
    assert skbus(file)[0] == 2
    code, out, err = skbus("--congestion-control", f"{plugin}:Mine", file)
    assert code == 0, out + err
    code, _, err = skbus("--congestion-control", f"{plugin}:Other", file)
    assert code == 2
    assert "--congestion-control" in err


def test_strict_end(tmp_path: Path) -> None:
    file = script(tmp_path, LATE.rpartition("+.003")[0])
    assert skbus(file)[0] == 0
    code, out, _ = skbus("--strict-end", file)
    assert code == 1
    assert "packets that the script does not list" in out


def test_results_for_machines(tmp_path: Path) -> None:
    wrong = script(tmp_path, LATE.replace("ack 1", "ack 2"))
    results, junit = tmp_path / "r.json", tmp_path / "r.xml"
    assert skbus("--json", results, "--junit", junit, ACTIVE, wrong)[0] == 1
    found = json.loads(results.read_text())
    assert [r["status"] for r in found] == ["passed", "failed"]
    assert found[1]["line"] == 6
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    code, _, err = skbus("--json", tmp_path / "no/r.json", ACTIVE)
    assert code == 2
    assert "cannot write" in err


def test_dry_run_reads_alone(tmp_path: Path) -> None:
    assert skbus("--dry-run", script(tmp_path, LATE.replace("ack 1", "ack 2")))[0] == 0
    code, out, _ = skbus("--dry-run", script(tmp_path, LATE.replace("ack 1", "ack")))
    assert code == 2
    assert "script.pkt:6: expected an acknowledgment" in out


def test_quiet_and_verbose() -> None:
    other = HERE / "ack/quick.pkt"
    _, plain, _ = skbus(ACTIVE, other)
    assert plain.count("ok  ") == 2
    assert plain.splitlines()[-1].startswith("2 passed in ")
    for option in ("-q", "--quiet"):
        _, out, _ = skbus(option, ACTIVE, other)
        assert "ok  " not in out
        assert out.startswith("2 passed")
    for option in ("-v", "--verbose"):
        _, out, _ = skbus(option, ACTIVE)
        assert "what happened, line by line:" in out
        assert "> S 0:0(0)" in out


def test_what_is_not_there(tmp_path: Path) -> None:
    code, _, err = skbus(tmp_path / "no.pkt")
    assert (code, err) == (2, f"skbus packetdrill: no such script: {tmp_path}/no.pkt\n")
    code, _, err = skbus(tmp_path)
    assert (code, err) == (2, f"skbus packetdrill: no *.pkt below {tmp_path}\n")


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        (("--pcap", "x"), "tcpdump"),
        (("--sysctl", "net.ipv4.tcp_sack=0"), "skbus sysctl"),
        (("--seed", "1"), "leave it out"),
        (("--congestion-control", "x:Y"), "leave it out"),
    ],
)
def test_options_of_the_simulation_are_not_taken_live(option: tuple[str, str], remedy: str) -> None:
    code, _, err = skbus("--live", *option, ACTIVE)
    assert code == 2
    assert f"{option[0]} is for --sim" in err
    assert remedy in err


def test_live_without_a_lab(tmp_path: Path) -> None:
    code, _, err = skbus("--live", ACTIVE, env={"SKBUS_DIR": str(tmp_path / "none")})
    assert code != 0
    assert "Traceback" not in err
    assert "stack" in err
