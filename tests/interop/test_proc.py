# SPDX-License-Identifier: MIT
"""`skbus proc` and `skbus sysctl` of a running stack: what a connection did is what they tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from skbus.cli.app import main
from skbus.inet import proc
from skbus.stack.procfiles import asker
from skbustest.procfiles import PARSERS, Row, address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.interop.conftest import Lab

pytestmark = pytest.mark.lab

HOLD = """
import json, sys
from skbus import socket
host, peer, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
listener = socket.create_server((host, port))
one = socket.create_connection((host, port))
two, _ = listener.accept()
pending = socket.create_connection((host, port))
one.sendall(bytes(1234))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((host, port))
to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
to.connect((host, port))
to.send(bytes(100))
lite = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE)
lite.bind(("0.0.0.0", port))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
ping.bind((host, 4321))
group = socket.inet_aton("239.7.7.7") + socket.inet_aton(host)
udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
socket.barrier(60)
print(json.dumps({"one": one.getsockname(), "pending": pending.getsockname(),
                  "to": to.getsockname()}), flush=True)
sys.stdin.read()
"""


def rows(lab: Lab, name: str) -> list[Row]:
    return PARSERS[name](proc.read(name, asker(lab.run)))


@pytest.fixture
def skbus(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: (exit status, output, errors)."""
    monkeypatch.setenv("SKBUS_DIR", lab.env["SKBUS_DIR"])

    def call(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["skbus", *argv])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def held(
    lab: Lab, port: int, poll: Callable[[Callable[[], bool], float, str], None]
) -> Iterator[dict[str, Any]]:
    """A process with sockets of each kind, and no other; their addresses."""
    poll(lab.empty, 60.0, "nothing is left of earlier tests")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lab.address, lab.peer_address, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **lab.env},
    ) as process:
        assert process.stdout is not None
        yield {**json.loads(process.stdout.readline()), "port": port}
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def _by_ends(found: list[Row]) -> dict[tuple[Any, Any], Row]:
    return {(address(r["local_address"]), address(r["rem_address"])): r for r in found}


def test_sockets_are_told(lab: Lab, held: dict[str, Any]) -> None:
    port = held["port"]
    here, one, pending = (lab.address, port), tuple(held["one"]), tuple(held["pending"])
    nobody = ("0.0.0.0", 0)
    tcp = _by_ends(rows(lab, "tcp"))
    listener = tcp[here, nobody]
    assert (listener["st"], int(listener["rx_queue"], 16)) == ("0A", 1), "one waits for accept"
    assert listener["uid"] == str(os.geteuid())
    accepted = tcp[here, one]
    assert (accepted["st"], int(accepted["rx_queue"], 16)) == ("01", 1234)
    assert (tcp[one, here]["st"], int(tcp[one, here]["tx_queue"], 16)) == ("01", 0)
    assert tcp[here, pending]["inode"] == "0", "nobody has accepted it"
    udp = _by_ends(rows(lab, "udp"))
    assert int(udp[here, nobody]["rx_queue"], 16) >= 100
    assert udp[here, nobody]["st"] == "07"
    assert udp[tuple(held["to"]), here]["st"] == "01"
    assert (("0.0.0.0", port), nobody) in _by_ends(rows(lab, "udplite"))
    assert (("0.0.0.0", 253), nobody) in _by_ends(rows(lab, "raw"))
    assert ((lab.address, 4321), nobody) in _by_ends(rows(lab, "icmp"))
    groups = {(r["Device"], address(r["Group"] + ":0")[0]) for r in rows(lab, "igmp")}
    assert {("eth0", "224.0.0.1"), ("eth0", "239.7.7.7"), ("lo", "224.0.0.1")} <= groups
    sockstat = {row[""]: row for row in rows(lab, "sockstat")}
    assert sockstat["sockets"]["used"] == "9"
    assert int(sockstat["TCP"]["inuse"]) >= 5
    assert [sockstat[k]["inuse"] for k in ("UDP", "UDPLITE", "RAW")] == ["2", "1", "1"]
    assert int(sockstat["TCP"]["mem"]) >= 1, "1234 bytes wait to be read"
    assert int(sockstat["UDP"]["mem"]) >= 1
    protocols = {row["protocol"]: row for row in rows(lab, "protocols")}
    assert protocols["TCP"]["memory"] == sockstat["TCP"]["mem"]
    assert protocols["UDP"]["memory"] == protocols["UDP-Lite"]["memory"] == sockstat["UDP"]["mem"]
    assert [protocols[k]["sockets"] for k in ("TCP", "UDP", "UDP-Lite", "RAW", "PING")] == [
        "5", "2", "1", "1", "1",
    ]  # fmt: skip


def _counters(lab: Lab) -> dict[str, int]:
    return {
        row[""] + name: int(value)
        for file in ("snmp", "netstat")
        for row in rows(lab, file)
        for name, value in row.items()
        if name
    }


def test_counters_tell_what_a_connection_did(lab: Lab, port: int) -> None:
    listen = lab.linux("wait_listening", host=lab.peer_address, port=1, seconds=0.1)
    listen.result(60)  # the neighbour is known after it
    before, dev = _counters(lab), {r[""]: r for r in rows(lab, "dev")}
    done = lab.tool("ping", "-c", "5", "-i", "0.05", "-s", "1000", lab.address)
    assert done.returncode == 0, done.stdout
    refused = lab.linux("wait_listening", host=lab.address, port=port, seconds=0.1)
    assert not refused.result(60)["listening"]
    after, dev2 = _counters(lab), {r[""]: r for r in rows(lab, "dev")}
    grown = {name: after[name] - n for name, n in before.items()}
    assert grown["IcmpInEchos"] == grown["IcmpOutEchoReps"] == 5
    assert grown["TcpOutRsts"] >= 1
    assert grown["TcpInSegs"] >= grown["TcpOutRsts"]
    assert grown["IpInReceives"] >= 5 + grown["TcpInSegs"]
    assert grown["IpExtInOctets"] >= 5 * 1028
    assert grown["TcpActiveOpens"] == 0
    rx = int(dev2["eth0"]["rx bytes"]) - int(dev["eth0"]["rx bytes"])
    tx = int(dev2["eth0"]["tx packets"]) - int(dev["eth0"]["tx packets"])
    assert rx >= 5 * 1042
    assert tx >= 5 + grown["TcpOutRsts"]


def test_neighbours_and_routes(lab: Lab) -> None:
    assert lab.tool("ping", "-c", "1", lab.address).returncode == 0
    neighbours = {row["IP address"]: row for row in rows(lab, "arp")}
    shown = lab.tool("cat", f"/sys/class/net/{lab.peer_dev}/address").stdout.strip()
    peer = neighbours[lab.peer_address]
    assert peer["Flags"] == "0x2"
    assert peer["Device"] == lab.dev
    assert peer["HW address"] == shown or not shown  # sysfs may be another namespace's
    routes = {(address(r["Destination"] + ":0")[0], r["Iface"]): r for r in rows(lab, "route")}
    assert address(routes["10.77.0.0", lab.dev]["Mask"] + ":0")[0] == "255.255.255.0"


def test_the_command(skbus: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = skbus("proc")
    listed = out.split()
    assert listed == [f"net/{name}" for name in proc.NAMES]
    code, out, err = skbus("proc", *listed)
    assert (code, err) == (0, "")
    assert out.count("==> net/") == len(listed)
    _, out, _ = skbus("proc", "/proc/net/route")
    assert out.startswith("Iface\t")
    code, _, err = skbus("proc", "net/tcp6")
    assert code == 1
    assert "no such file: net/tcp6" in err


LINES: list[tuple[list[str], int, str, str]] = [
    (["net.ipv4.tcp_sack"], 0, "net.ipv4.tcp_sack = 1\n", ""),
    (["net/ipv4/tcp_sack"], 0, "net.ipv4.tcp_sack = 1\n", ""),
    (["-n", "net.ipv4.tcp_sack"], 0, "1\n", ""),
    (["-N", "net.ipv4.tcp_sack"], 0, "net.ipv4.tcp_sack\n", ""),
    (["-w", "net.ipv4.tcp_sack=1"], 0, "net.ipv4.tcp_sack = 1\n", ""),
    (["net.ipv4.tcp_sack=1"], 0, "net.ipv4.tcp_sack = 1\n", ""),
    (["-q", "-w", "net.ipv4.tcp_sack=1"], 0, "", ""),
    (["net.ipv4.ip_local_port_range"], 0, "net.ipv4.ip_local_port_range = 32768\t60999\n", ""),
    (["net.ipv4.nope"], 1, "",
     "sysctl: cannot stat /proc/sys/net/ipv4/nope: No such file or directory\n"),
    (["-w", "net.ipv4.nope=1"], 1, "",
     "sysctl: cannot stat /proc/sys/net/ipv4/nope: No such file or directory\n"),
    (["-e", "net.ipv4.nope"], 0, "", ""),
    (["net.ipv4.nope", "net.ipv4.tcp_sack"], 1, "net.ipv4.tcp_sack = 1\n",
     "sysctl: cannot stat /proc/sys/net/ipv4/nope: No such file or directory\n"),
    (["-w", "net.ipv4.tcp_sack=x"], 1, "",
     'sysctl: setting key "net.ipv4.tcp_sack": Invalid argument\n'),
    (["-w", "net.ipv4.ip_local_port_range=70000 80000"], 1, "",
     'sysctl: setting key "net.ipv4.ip_local_port_range": Invalid argument\n'),
    (["-w", "net.ipv4.tcp_congestion_control=nope"], 1, "",
     'sysctl: setting key "net.ipv4.tcp_congestion_control": No such file or directory\n'),
    (["-w", "net.ipv4.tcp_sack"], 1, "",
     "sysctl: command line(0): invalid syntax, continuing...\n"),
    (["-a", "-r", "tcp_syn_r"], 0, "net.ipv4.tcp_syn_retries = 6\n", ""),
    (["-a", "-r", "tcp_syn_r", "-N"], 0, "net.ipv4.tcp_syn_retries\n", ""),
]  # fmt: skip


def test_sysctl_prints_what_sysctl_prints(
    lab: Lab, skbus: Callable[..., tuple[int, str, str]], need: Callable[..., None]
) -> None:
    need("sysctl", "procps")
    for argv, code, out, err in LINES:
        status, shown, errors = skbus("sysctl", *argv)
        first = "".join(errors.splitlines(keepends=True)[:1])
        assert (status, shown, first) == (code, out, err), argv
        theirs = lab.tool("sysctl", *argv)
        assert (theirs.returncode, theirs.stdout) == (code, out), argv
        assert theirs.stderr == err, argv


def test_sysctl_reads_files(skbus: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "sysctl.conf"
    file.write_text("# comment\n; another\n\nnet.ipv4.tcp_sack = 1\nnonsense\n")
    code, out, err = skbus("sysctl", "-p", str(file))
    assert (code, out) == (1, "net.ipv4.tcp_sack = 1\n")
    assert err == f"sysctl: {file}(5): invalid syntax, continuing...\n"


def test_sysctl_works_at_run_time(lab: Lab, skbus: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = skbus("sysctl", "-a")
    assert all(" = " in line for line in out.splitlines())
    assert len(out.splitlines()) > 100
    name = "net.ipv4.icmp_echo_ignore_all"
    assert skbus("sysctl", "-w", f"{name}=1") == (0, f"{name} = 1\n", "")
    try:
        assert lab.tool("ping", "-c", "1", "-W", "0.3", lab.address).returncode == 1
    finally:
        skbus("sysctl", "-w", f"{name}=0")
    assert lab.tool("ping", "-c", "1", lab.address).returncode == 0
