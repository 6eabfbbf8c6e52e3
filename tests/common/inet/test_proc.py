# SPDX-License-Identifier: MIT
"""/proc/net of the stack: the same lines as the machine's own, read by the same parser."""

from pathlib import Path
from typing import Any

import pytest

from skbus.inet import proc
from skbustest.procfiles import PARSERS, address, heads

OURS: dict[tuple[str, str], Any] = {
    ("tcp", "tcp"): [
        (2, 10, (bytes(4), 80), (bytes(4), 0), 0, 1, 0, 0, 0, 0, (100, 0, 0, 10, 0)),
        (4, 1, (b"\x0a\x4d\0\2", 4000), (b"\x0a\x4d\0\1", 65535), 7, 9, 1, 20, 3, 0,
         (20, 4, 31, 10, -1)),
        (0, 6, (b"\x0a\x4d\0\2", 4001), (b"\x0a\x4d\0\1", 80), 0, 0, 3, 5999, 0, 0, ()),
        (0, 3, (b"\x0a\x4d\0\2", 80), (b"\x0a\x4d\0\1", 81), 0, 0, 1, 99, 2, 0, ()),
    ],
    ("udp", "udp"): [(6, 7, (b"\x7f\0\0\1", 53), (bytes(4), 0), 300, 5)],
    ("udp", "udplite"): [(8, 1, (b"\x7f\0\0\1", 9), (b"\x7f\0\0\2", 10), 0, 0)],
    ("ip", "raw"): [(10, 7, (bytes(4), 255), (bytes(4), 0), 0, 0)],
    ("ip", "icmp"): [(12, 7, (bytes(4), 77), (bytes(4), 0), 0, 0)],
    ("ip", "igmp"): [(2, "eth0", 3, ((b"\xe0\0\0\1", 1, False, 0, False),
                                     (b"\xef\1\2\3", 2, True, 17, True)))],
    ("ip", "arp"): [(b"\x0a\x4d\0\1", 2, b"\2\0\0\0\0\1", "eth0"),
                    (b"\x0a\x4d\0\x63", 0, bytes(6), "eth0")],
    ("ip", "route"): [("eth0", bytes(4), b"\x0a\x4d\0\1", 3, 100, 0),
                      ("*", b"\xc0\0\2\0", bytes(4), 0x201, 0, 24)],
    ("ip", "dev"): [(1, "lo", tuple(range(16)))],
    ("nic", "dev"): [(2, "eth0", (1 << 40, *range(15)))],
    ("ip", "sockstat"): {"raw": 1, "ping": 1, "frag": 2, "frag_mem": 3000},
    ("tcp", "sockstat"): {"inuse": 2, "orphan": 1, "tw": 5, "alloc": 4, "mem": 33},
    ("udp", "sockstat"): {"udp": 1, "udplite": 1, "mem": 2},
    ("socket", "sockstat"): {"used": 9},
    ("ip", "snmp"): {"IpForwarding": 2, "IpDefaultTTL": 64},
    ("", "counters"): {"TcpInSegs": 12, "TcpExtTCPPureAcks": 3, "IpExtInOctets": 99,
                       "IcmpInEchos": 4, "IcmpOutEchoReps": 4, "UdpLiteInDatagrams": 1},
    ("socket", "protocols"): [("TCP", 392, 4, 3, "yyyyyynyyyyynyyyyn"),
                              ("RDM", 344, 2, 7, "yyynyynyyyyynyyyyn"),
                              ("UDP-Lite", 344, 1, 0, "yyynyynyyyyynyyyyn"),
                              ("RAW", 344, 1, -1, "yyynyynyyyyynyyyyn")],
    ("tcp", "protocols"): {"TCP": (33, True)},
    ("udp", "protocols"): {"UDP": (2, None), "UDP-Lite": (2, None)},
}  # fmt: skip
OWNERS = {2: (0, 2, 0), 4: (1000, 4, 0), 6: (1000, 6, 55, 2), 8: (0, 8, 0), 10: (0, 10, 0)}

MORE = ["TCPPrequeued", "TCPPrequeueDropped"]
"""what newer kernels do not have any more"""


def ask(process: str, name: str) -> Any:
    if process == "socket" and name in proc.TRANSPORTS:
        return OWNERS
    return OURS[process, name]


def linux(name: str) -> str:
    path = Path("/proc/net") / name
    if not path.exists():
        pytest.skip(f"this kernel has no {path}")
    return path.read_text()


@pytest.mark.parametrize("name", proc.NAMES)
def test_one_parser_reads_both(name: str) -> None:
    theirs = PARSERS[name](linux(name))
    ours = PARSERS[name](proc.read(name, ask))
    assert ours
    if name in ("snmp", "netstat", "sockstat"):
        return  # test_counters
    for row in theirs[:1]:
        assert list(ours[0]) == list(row)


@pytest.mark.parametrize("name", [n for n in proc.NAMES if n not in ("snmp", "netstat")])
def test_the_head_is_linuxs(name: str) -> None:
    found = heads(name, proc.read(name, ask))
    if name == "sockstat":
        expected = heads(name, linux(name))
        assert [line for line in found if line not in expected] == []
    else:
        assert found == heads(name, linux(name))


@pytest.mark.parametrize("name", ["snmp", "netstat"])
def test_counters(name: str) -> None:
    theirs = {row.pop(""): list(row) for row in PARSERS[name](linux(name))}
    ours = {row.pop(""): list(row) for row in PARSERS[name](proc.read(name, ask))}
    theirs.pop("MPTcpExt", None)  # we have no Multipath TCP
    theirs.pop("IcmpMsg", None)
    ours.pop("IcmpMsg", None)
    assert list(ours) == list(theirs)
    for group, columns in theirs.items():
        have = [c for c in ours[group] if c in columns]
        assert have == columns, f"{group}: in another order, or not there"
    assert ours.get("TcpExt", MORE)[-2:] == MORE, "at the end, where no script looks"


def test_a_line_is_as_wide_as_linuxs() -> None:
    for name, width in (
        ("tcp", 149),
        ("udp", 127),
        ("udplite", 127),
        ("icmp", 127),
        ("route", 127),
    ):
        lines = proc.read(name, ask).splitlines()
        assert {len(line) for line in lines} == {width}, name
        assert {len(line) for line in linux(name).splitlines()} == {width}, name


def test_sockets() -> None:
    listener, connection, tw, req = PARSERS["tcp"](proc.read("tcp", ask))
    assert address(connection["local_address"]) == ("10.77.0.2", 4000)
    assert address(connection["rem_address"]) == ("10.77.0.1", 65535)
    assert connection["st"] == "01"
    assert (connection["tx_queue"], connection["rx_queue"]) == ("00000007", "00000009")
    assert (connection["tr"], connection["when"], connection["retrnsmt"]) == (
        "01", "00000014", "00000003",
    )  # fmt: skip
    assert (connection["uid"], connection["inode"]) == ("1000", "4")
    assert connection["rest"].split() == ["20", "4", "31", "10", "-1"]
    assert (listener["st"], listener["rx_queue"]) == ("0A", "00000001")
    assert (tw["st"], tw["ref"], tw["inode"], tw["rest"]) == ("06", "3", "0", "")
    assert (req["st"], req["ref"]) == ("03", "0")
    (udp,) = PARSERS["udp"](proc.read("udp", ask))
    assert (udp["sl"], udp["tx_queue"], udp["rx_queue"]) == ("53", "00000037", "0000012C")
    assert udp["rest"] == "7", "drops of both processes"


def test_counted() -> None:
    snmp = {row[""]: row for row in PARSERS["snmp"](proc.read("snmp", ask))}
    assert (snmp["Ip"]["Forwarding"], snmp["Ip"]["DefaultTTL"]) == ("2", "64")
    assert (snmp["Tcp"]["InSegs"], snmp["Tcp"]["MaxConn"]) == ("12", "-1")
    assert snmp["UdpLite"]["InDatagrams"] == "1"
    assert snmp["IcmpMsg"] == {"": "IcmpMsg", "InType8": "4", "OutType0": "4"}
    netstat = {row[""]: row for row in PARSERS["netstat"](proc.read("netstat", ask))}
    assert netstat["TcpExt"]["TCPPureAcks"] == "3"
    assert netstat["IpExt"]["InOctets"] == "99"


def test_the_rest() -> None:
    _, group = PARSERS["igmp"](proc.read("igmp", ask))
    assert address(group["Group"] + ":0")[0] == "239.1.2.3"
    assert (group["Timer"], group["Reporter"]) == ("1:00000011", "1")
    arp = PARSERS["arp"](proc.read("arp", ask))
    assert [n["Flags"] for n in arp] == ["0x2", "0x0"]
    default, rejected = PARSERS["route"](proc.read("route", ask))
    assert address(default["Gateway"] + ":0")[0] == "10.77.0.1"
    assert (default["Metric"], default["Flags"]) == ("100", "0003")
    assert (rejected["Iface"], address(rejected["Mask"] + ":0")[0]) == ("*", "255.255.255.0")
    lo, eth0 = PARSERS["dev"](proc.read("dev", ask))
    assert (lo[""], eth0[""], eth0["rx bytes"]) == ("lo", "eth0", str(1 << 40))
    found = [
        (p["protocol"], p["sockets"], p["memory"], p["press"])
        for p in PARSERS["protocols"](proc.read("protocols", ask))
    ]
    assert found == [
        ("TCP", "4", "33", "yes"),
        ("RDM", "2", "7", "NI"),
        ("UDP-Lite", "1", "2", "NI"),
        ("RAW", "1", "-1", "NI"),
    ]
    sockstat = {row[""]: row for row in PARSERS["sockstat"](proc.read("sockstat", ask))}
    assert (sockstat["TCP"]["mem"], sockstat["UDP"]["mem"]) == ("33", "2")


def test_there_is_no_other() -> None:
    with pytest.raises(KeyError):
        proc.read("tcp6", ask)
