# SPDX-License-Identifier: MIT
"""What others take us for: nmap's OS detection, and the fingerprint of a SYN as p0f writes it.

`docs/conformance.md` says the same in words. Where our answers differ from Linux's, the tests name
the difference.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable, Lab, Reference

pytestmark = pytest.mark.lab

VARIES = {"SP", "ISR", "GCD", "SS"}
"""What nmap measures of initial sequence numbers, which are as random as Linux's."""
KNOWN: dict[str, tuple[str, str]] = {}
"""Test: (ours, Linux's), where they differ."""


def fingerprint(cable: Cable, opened: int, closed: int) -> dict[str, str]:
    """nmap's answers: "T1.W" -> "FE88". TCP's window scale and clock are left out, as they follow
    from `tcp_rmem` and the machine."""
    done = cable.tool(
        "nmap", "-n", "-Pn", "-O", "-d", "--max-os-tries", "1",
        "-p", f"{opened},{closed}", cable.address, seconds=180.0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line[3:] for line in done.stdout.splitlines() if line.startswith("OS:")]
    found: dict[str, str] = {}
    for name, inside in re.findall(r"([A-Z0-9]+)\(([^)]*)\)", "".join(lines)):
        for pair in inside.split("%"):
            key, _, value = pair.partition("=")
            if name != "SCAN" and key not in VARIES and (name, key) != ("SEQ", "TS"):
                found.setdefault(f"{name}.{key}", re.sub(r"NW[0-9A-F]$", "NWs", value))
    return found


@pytest.mark.slow
def test_nmap_finds_what_it_finds_of_linux(
    clean_lab: Lab, reference_cable: Reference, ports: Iterator[int], need: Callable[..., None]
) -> None:
    need("nmap")
    opened, closed = next(ports), next(ports)
    for cable in (clean_lab, reference_cable):
        cable.serve("http", opened)
    for _ in range(3):  # nmap does not wait long for answers, and takes none for one
        ours, linux = (fingerprint(cable, opened, closed) for cable in (clean_lab, reference_cable))
        every = ours.keys() | linux.keys()
        differ = {k: v for k in every if (v := (ours.get(k, ""), linux.get(k, "")))[0] != v[1]}
        if differ == KNOWN:
            break
    assert len(linux) > 50
    assert differ == KNOWN


def p0f(cable: Cable, connect: Callable[[], object], source: str, path: Path) -> str:
    """The SYN that `connect` sends, as p0f 3 writes it: version, TTL, length of IP's options, MSS,
    window and its scale, layout of the options, quirks, payload."""
    command = ["dumpcap", "-q", "-P", "-i", cable.peer_dev, "-c", "1", "-w", str(path), "-f"]
    command.append(f"src host {source} and tcp[tcpflags] == tcp-syn")
    with subprocess.Popen([*cable.peer, *command], stderr=subprocess.PIPE, text=True) as dumpcap:
        assert dumpcap.stderr is not None
        for line in dumpcap.stderr:
            if line.startswith("File: "):
                break
        connect()
        dumpcap.stderr.read()
    frame = path.read_bytes()[40:]
    ip, tcp = frame[14:34], frame[34:]
    end = (tcp[12] >> 4) * 4
    kinds, mss, scale, at = [], 0, 0, 20
    while at < end:
        kind = tcp[at]
        size = 1 if kind < 2 else tcp[at + 1]
        mss = int.from_bytes(tcp[at + 2 : at + 4], "big") if kind == 2 else mss
        scale = tcp[at + 2] if kind == 3 else scale
        kinds.append({1: "nop", 2: "mss", 3: "ws", 4: "sok", 8: "ts"}.get(kind, f"?{kind}"))
        at += size
    window = int.from_bytes(tcp[14:16], "big")
    said = f"mss*{window // mss}" if window % mss == 0 else str(window)
    quirks = ["df"] if ip[6] & 0x40 else []
    quirks += ["id+" if ip[4:6] != b"\0\0" else "id-"]
    payload = int.from_bytes(ip[2:4], "big") - 20 - end
    return (
        f"4:{ip[8]}:{(ip[0] & 15) * 4 - 20}:{mss}:{said},{'s' if scale else 0}:"
        f"{','.join(kinds)}:{','.join(quirks)}:{'+' if payload else 0}"
    )


def test_a_syn_of_ours_is_one_of_linux(
    clean_lab: Lab,
    reference_cable: Reference,
    ports: Iterator[int],
    need: Callable[..., None],
    tmp_path: Path,
) -> None:
    need("dumpcap", "wireshark-common")
    port = next(ports)
    seen = []
    for i, cable in enumerate((clean_lab, reference_cable)):

        def connect(cable: Cable = cable) -> object:
            end = cable.ours("connect_outcome", host=cable.peer_address, port=port, timeout=None)
            return end.result(60)

        seen.append(p0f(cable, connect, cable.address, tmp_path / f"{i}.pcap"))
    ours, linux = seen
    assert ours == linux == "4:64:0:1460:mss*44,s:mss,sok,ts,nop,ws:df,id+:0"
