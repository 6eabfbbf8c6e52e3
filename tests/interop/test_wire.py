# SPDX-License-Identifier: MIT
"""What is on the wire, in tshark's eyes: nothing malformed, no bad checksum, no protocol violation.

The cable has no offload, so that tshark checks every checksum of both ends. First Linux stands in
our place and shows that the traffic alone gives no cause for complaint.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable, Lab, Reference

pytestmark = pytest.mark.lab

PROTOCOLS = "frame eth ethertype arp ip tcp udp icmp data".split()
"""Without the rest: tshark would take the tests' random bytes for the protocols whose ports they
use, and those for malformed."""

WARNING = 0x600000
SEQUENCE = "33554432"
GROUPS = {
    "16777216": "checksum", SEQUENCE: "sequence", "50331648": "response",
    "67108864": "request", "83886080": "undecoded", "100663296": "reassemble",
    "117440512": "malformed", "150994944": "protocol",
}  # fmt: skip

HARMLESS = (
    "Connection reset (RST)",
    # A veth's queues, one per processor, reorder a little; and a RST leaves things unread.
    "Previous segment(s) not captured",
    "Previous segment(s) not captured (common at capture start)",
    "This frame is a (suspected) out-of-order segment",
    # A tail loss probe (RFC 8985 7) goes out when a busy machine answers late; the other end says
    # that it had the data.
    "D-SACK Sequence",
    "TCP Zero Window segment",
    "TCP window specified by the receiver is now completely full",
)


MANGLED = "TCP Checksum 0xffff instead of 0x0000 (see RFC 1624)"
"""Where a sender leaves the checksum to a device that has no offload, Linux fills it in, for TCP as
for UDP with 0xffff in the place of 0: one segment in 65,536, whoever sent it."""


@contextmanager
def captured(cable: Cable, path: Path) -> Iterator[None]:
    """Capture at the kernel's end; a capture that lost packets is no evidence. (By dumpcap, which
    tshark brings: tcpdump wants another user to become, and there is none in our namespaces.)"""
    command = ["dumpcap", "-q", "-P", "-i", cable.peer_dev, "-B", "64", "-w", str(path)]
    with subprocess.Popen([*cable.peer, *command], stderr=subprocess.PIPE, text=True) as dumpcap:
        assert dumpcap.stderr is not None
        told = ""
        try:
            for line in dumpcap.stderr:
                told += line
                if line.startswith("File: "):
                    break
            yield
        finally:
            dumpcap.send_signal(signal.SIGINT)
        told += dumpcap.stderr.read()
    assert re.search(r"received/dropped on interface .*: \d+/0 ", told), told


def complaints(path: Path) -> tuple[int, Counter[tuple[str, str, str]]]:
    """Number of packets, and tshark's warnings and errors: (from, group, message) -> how often."""
    checks = [word for p in ("ip", "tcp", "udp") for word in ("-o", f"{p}.check_checksum:TRUE")]
    fields = ("ip.src", "_ws.expert.severity", "_ws.expert.group", "_ws.expert.message")
    env = {**os.environ, "WIRESHARK_CONFIG_DIR": str(path.parent)}
    known = subprocess.run(
        ["tshark", "-G", "protocols"], capture_output=True, text=True, check=True, env=env
    )
    names = [line.split("\t")[2] for line in known.stdout.splitlines()]
    others = [name for name in names if name not in PROTOCOLS]
    (path.parent / "disabled_protos").write_text("\n".join(others) + "\n")
    done = subprocess.run(
        [
            "tshark", "-r", str(path), "-n", *checks,
            "-T", "fields", "-E", "separator=/t", "-E", "aggregator=|",
            *(word for f in fields for word in ("-e", f)),
        ],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )  # fmt: skip
    found: Counter[tuple[str, str, str]] = Counter()
    lines = done.stdout.splitlines()
    for line in lines:
        source, severities, groups, messages = line.split("\t")
        if not severities:
            continue
        told = zip(severities.split("|"), groups.split("|"), messages.split("|"), strict=True)
        for severity, group, message in told:
            if int(severity) >= WARNING:
                found[source.split("|")[0], GROUPS.get(group, group), message] += 1
    return len(lines), found


def traffic(cable: Cable, ports: Iterator[int]) -> None:
    """Some of everything."""
    port = next(ports)
    ours = cable.ours("serve_both_ways", port=port, size=2 << 20, seed=1)
    ours.heard("ready")
    linux = cable.linux("connect_both_ways", host=cable.address, port=port, size=2 << 20, seed=2)
    assert linux.result(60)["received"] == ours.result(60)["sent"]

    for serving, asking in (("serve_half_close", "half_close"), ("serve_reset", "be_reset")):
        for server, client, host in (
            (cable.ours, cable.linux, cable.address),
            (cable.linux, cable.ours, cable.peer_address),
        ):
            port = next(ports)
            there = server(serving, port=port)
            there.heard("ready")
            client(asking, host=host, port=port).result()
            there.result()

    port = next(ports)
    ours = cable.ours("serve_many", port=port, count=30)
    ours.heard("ready")
    cable.linux("connect_many", host=cable.address, port=port, count=30).result()
    ours.result()

    sizes = [1, 1472, 1473, 20_000]
    for server, client, host in (
        (cable.ours, cable.linux, cable.address),
        (cable.linux, cable.ours, cable.peer_address),
    ):
        port = next(ports)
        there = server("serve_datagrams", port=port, count=len(sizes))
        there.heard("ready")
        assert client("datagrams", host=host, port=port, sizes=sizes).result() == {"right": sizes}
        client("datagram_refused", host=host, port=port).result()
        client("connect_outcome", host=host, port=port, timeout=None).result()

    cable.serve("http", port := next(ports))
    url = f"http://{cable.address}:{port}/"
    for command in (
        f"curl -sS -o /dev/null {url}",
        f"wrk -t 1 -c 50 -d 2s {url}",
        f"ping -f -i 0.002 -q -c 100 {cable.address}",
        f"ping -q -c 3 -i 0.02 -s 20000 {cable.address}",
        f"traceroute -n -m 3 -w 5 {cable.address}",
        f"traceroute -n -m 3 -w 5 -I {cable.address}",
        f"nmap -n -Pn -sS -p {port},1-30 {cable.address}",
    ):
        done = cable.tool(*command.split())
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["linux", "skbus"])
def test_tshark_has_no_complaint(
    request: pytest.FixtureRequest,
    stack: str,
    ports: Iterator[int],
    tmp_path: Path,
    need: Callable[..., None],
) -> None:
    for program in ("tshark", "curl", "wrk", "nmap", "traceroute", "ethtool"):
        need(program)
    need("dumpcap", "wireshark-common")
    need("ping", "iputils-ping")
    cable: Cable = request.getfixturevalue("plain" if stack == "skbus" else "plain_reference")
    with captured(cable, tmp_path / "all.pcap"):
        traffic(cable, ports)
    packets, found = complaints(tmp_path / "all.pcap")
    assert packets > 3000
    serious = {
        what: times
        for what, times in found.items()
        if what[2] != MANGLED and (what[1] != "sequence" or what[2] not in HARMLESS)
    }
    assert not serious, f"in {packets} packets: {serious}; harmless: {found}"


ANALYSIS = ("retransmission", "fast_retransmission", "spurious_retransmission", "duplicate_ack")


def analysis(path: Path, source: str) -> Counter[str]:
    """What tshark's analysis of sequence numbers says of the segments of one end."""
    fields = [f"tcp.analysis.{name}" for name in ANALYSIS]
    done = subprocess.run(
        [
            "tshark", "-r", str(path), "-n", "-Y", f"ip.src == {source} and tcp",
            "-T", "fields", "-E", "separator=/t", *(w for f in fields for w in ("-e", f)),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "WIRESHARK_CONFIG_DIR": str(path.parent)},
    )  # fmt: skip
    found: Counter[str] = Counter()
    for line in done.stdout.splitlines():
        told = line.split("\t") + [""] * len(ANALYSIS)
        found.update(name for name, value in zip(ANALYSIS, told, strict=False) if value)
        found["segments"] += 1
    return found


def bulk(cable: Cable, ports: Iterator[int]) -> None:
    """8 MiB each way, one after the other, without loss."""
    for server, client, host in (
        (cable.ours, cable.linux, cable.address),
        (cable.linux, cable.ours, cable.peer_address),
    ):
        port = next(ports)
        there = server("serve_receive", port=port)
        there.heard("ready")
        sent = client("send", host=host, port=port, size=8 << 20, seed=port).result(120)
        assert there.result(120)["sha256"] == sent["sha256"]


def test_bulk_without_loss_repeats_nothing(
    plain: Lab,
    plain_reference: Reference,
    ports: Iterator[int],
    tmp_path: Path,
    need: Callable[..., None],
) -> None:
    for program in ("tshark", "ethtool"):
        need(program)
    need("dumpcap", "wireshark-common")
    before = plain.counters("tcp")
    seen = []
    for name, cable in (("ours", plain), ("linux", plain_reference)):
        with captured(cable, tmp_path / f"{name}.pcap"):
            bulk(cable, ports)
        seen.append(analysis(tmp_path / f"{name}.pcap", cable.address))
    ours, linux = seen
    after = plain.counters("tcp")
    did = {name: after.get(name, 0) - before.get(name, 0) for name in after}
    assert min(ours["segments"], linux["segments"]) > 4000
    # On a busy machine an answer may be so late that a tail loss probe goes (RFC 8985 7), or the
    # timer fires (RFC 6298), as with Linux; and a veth that has two queues reorders.
    repeated = did.get("TcpRetransSegs", 0)
    in_vain = did.get("TcpExtTCPLossProbes", 0) + did.get("TcpExtTCPTimeouts", 0)
    reordered = did.get("TcpExtTCPOFOQueue", 0) + did.get("TcpExtTCPDSACKOldSent", 0)
    # A timer that fires makes what is under way be sent again, until an acknowledgement comes.
    assert repeated <= 10 * in_vain + linux["retransmission"] + linux["spurious_retransmission"]
    assert ours["spurious_retransmission"] <= repeated
    assert ours["duplicate_ack"] <= linux["duplicate_ack"] + reordered
