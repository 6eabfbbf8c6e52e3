# SPDX-License-Identifier: MIT
"""The demo: what it picks from the logs, and the whole of it in namespaces."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skbus.cli import demonstration as demo


def event(time: float, process: str, function: str, **fields: object) -> dict[str, Any]:
    return {"time": time, "level": "debug", "process": process, "event": function, **fields}


REQUEST = [
    event(1.0, "nic.eth0", "napi_gro_receive", skb="a"),
    event(1.1, "ip", "ip_rcv", skb="a"),
    event(1.2, "tcp", "tcp_v4_rcv", skb="a"),
    event(1.3, "tcp", "sk_data_ready", skb="a", sk=7, len=73),
]
SYSCALLS = [
    event(1.4, "socket", "sock_read"),
    event(1.5, "socket", "sock_write"),
    event(1.5, "socket", "tcp_sendmsg", skb="s", sk=7),
    event(1.6, "tcp", "tcp_sendmsg", skb="s"),
]
ANSWER = [
    event(1.7, "tcp", "tcp_transmit_skb", skb="b", sk=7, len=508),
    event(1.8, "ip", "ip_queue_xmit", skb="b"),
    event(1.9, "nic.eth0", "dev_hard_start_xmit", skb="b"),
]
NOISE = [
    event(0.5, "nic.eth0", "napi_gro_receive", skb="syn"),
    event(0.6, "tcp", "tcp_v4_rcv", skb="syn"),
    event(1.35, "tcp", "tcp_transmit_skb", skb="ack", sk=7, len=0),
    event(1.36, "nic.eth0", "dev_hard_start_xmit", skb="ack"),
    event(1.45, "tcp", "tcp_write_xmit", sk=8),
    event(2.5, "socket", "sock_read"),
]


def test_one_request_and_its_answer_without_the_rest() -> None:
    expected = [*REQUEST, *SYSCALLS, *ANSWER]
    everything = sorted([*expected, *NOISE], key=lambda e: float(e["time"]))
    assert demo.story(everything) == expected


def test_no_answer_no_story() -> None:
    assert demo.story([*REQUEST, *SYSCALLS]) == []
    assert demo.story([*SYSCALLS, *ANSWER]) == []
    other = [{**e, "sk": 9} if "sk" in e else e for e in ANSWER]
    assert demo.story([*REQUEST, *other]) == []


@pytest.mark.lab
def test_the_demo() -> None:
    skbus = Path(sys.executable).with_name("skbus")
    # docs/architecture.md, "The way of a packet", up and down again
    way = ["napi_gro_receive", "netif_receive_skb", "ip_rcv", "ip_rcv_finish", "ip_local_deliver"]
    way += ["tcp_v4_rcv", "tcp_rcv_established", "sk_data_ready", "tcp_recvmsg"]
    way += ["sock_write", "sock_sendmsg", "inet_sendmsg", "tcp_sendmsg", "tcp_send_skb"]
    way += ["tcp_transmit_skb", "ip_queue_xmit", "ip_queue_xmit2", "ip_output", "ip_finish_output"]
    way += ["ip_finish_output2", "neigh_resolve_output", "dev_queue_xmit", "dev_hard_start_xmit"]
    for _ in range(3):
        done = subprocess.run(
            [skbus, "demo"], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("HTTP 200") == 2
        assert "nothing is left running" in done.stdout
        told = [line.split() for line in done.stdout.splitlines() if " us  " in line]
        functions = [next(w for w in words[2:] if "_" in w) for words in told]
        # A process takes what has come since it has looked at its clock, too: what two of them
        # logged can be the wrong way round, in one demo of many.
        rest = iter(functions)
        if all(function in rest for function in way):
            break
    else:
        pytest.fail(f"not all of {way}, or not in that order: {functions}")
