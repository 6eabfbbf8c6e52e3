# SPDX-License-Identifier: MIT
"""The way of a packet, read off the logs of a running stack: every function of it, in its process
and in the kernel's order (`docs/kernel-map.md`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from skbus.bus.ctl import ctl_call

if TYPE_CHECKING:
    from tests.interop.conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.ends("endpoints_log")]

Poll = Callable[[Callable[[], bool], float, str], None]

IP_OUT = ["ip_output", "ip_finish_output", "ip_finish_output2", "neigh_resolve_output"]
NIC_OUT = ["dev_queue_xmit", "dev_hard_start_xmit"]
NIC_IN = ["napi_gro_receive", "netif_receive_skb"]
IP_IN = [
    "ip_rcv",
    "ip_rcv_finish",
    "ip_route_input",
    "ip_local_deliver",
    "ip_local_deliver_finish",
]


class Logs:
    """The logs of a lab's layers, from a mark on."""

    def __init__(self, lab: Lab, poll: Poll) -> None:
        self.lab = lab
        self.poll = poll
        self.at: dict[str, int] = {}
        self.mark()

    def mark(self) -> None:
        for name in self.lab.layers:
            self.at[name] = self.lab.run.log_file(name).stat().st_size

    def events(self, process: str) -> list[dict[str, Any]]:
        """What a process has logged since the mark."""
        with self.lab.run.log_file(process).open("rb") as f:
            f.seek(self.at[process])
            text = f.read()
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def ways(self, process: str) -> dict[str, list[str]]:
        """The functions that each skb passed there, "" for what is of none."""
        found: dict[str, list[str]] = {}
        for event in self.events(process):
            found.setdefault(event.get("skb", ""), []).append(event["event"])
        return found

    def passed(self, process: str, *functions: str) -> None:
        """Wait until a process has logged these, in this order (with others between them)."""

        def there() -> bool:
            return holds([e["event"] for e in self.events(process)], functions)

        self.poll(there, 60, f"{process} logs {', '.join(functions)}")

    def one_passed(self, *legs: tuple[str, list[str]]) -> None:
        """Wait until one and the same skb has passed all of these, process by process."""

        def there() -> bool:
            ways = [(self.ways(process), functions) for process, functions in legs]
            return any(
                all(holds(way.get(skb, []), functions) for way, functions in ways)
                for skb in ways[0][0]
                if skb
            )

        self.poll(there, 60, f"one skb passes {legs}")


def holds(events: list[str], functions: Any) -> bool:
    """Do the functions stand in the events, in their order?"""
    rest = iter(events)
    return all(function in rest for function in functions)


@pytest.fixture
def logs(lab: Lab, poll: Poll) -> Iterator[Logs]:
    """The lab's layers, logging every step for the time of a test."""
    for name in lab.layers:
        ctl_call(lab.run, name, "log_level", "debug", seconds=30)
    try:
        yield Logs(lab, poll)
    finally:
        for name in lab.layers:
            ctl_call(lab.run, name, "log_level", "info", seconds=30)


def test_a_tcp_request_of_ours(lab: Lab, logs: Logs, port: int) -> None:
    server = lab.linux("stream_server", port=port)
    server.heard("ready")
    server.go_on()
    client = lab.ours("stream_client", host=lab.peer_address, port=port)

    client.heard("created")
    logs.passed(
        "socket", "sys_socket", "sock_create", "__sock_create", "inet_create", "sk_alloc",
        "sock_init_data", "tcp_v4_init_sock", "sock_map_fd",
    )  # fmt: skip
    logs.mark()
    client.go_on()

    client.heard("connected")
    logs.passed("socket", "inet_stream_connect", "tcp_v4_connect")
    logs.passed("tcp", "tcp_v4_connect", "ip_route_connect", "tcp_connect", "tcp_transmit_skb")
    logs.passed("ip", "ip_route_output_key", "ip_queue_xmit", "neigh_resolve_output")
    logs.one_passed(
        ("tcp", ["tcp_v4_rcv", "__inet_lookup_established", "tcp_v4_do_rcv",
                 "tcp_rcv_state_process"]),
    )  # fmt: skip
    logs.mark()
    client.go_on()

    client.heard("sent")
    server.heard("asked")
    logs.passed("socket", "sock_write", "sock_sendmsg", "inet_sendmsg", "tcp_sendmsg")
    logs.passed("tcp", "tcp_sendmsg", "tcp_send_skb", "tcp_write_xmit", "tcp_transmit_skb")
    logs.one_passed(("socket", ["tcp_sendmsg"]), ("tcp", ["tcp_sendmsg"]))
    logs.one_passed(
        ("tcp", ["tcp_transmit_skb"]),
        ("ip", ["ip_queue_xmit", "ip_route_output_key", "ip_queue_xmit2", *IP_OUT]),
        ("nic.eth0", NIC_OUT),
    )
    logs.mark()
    client.go_on()
    logs.passed("socket", "sock_read", "sock_recvmsg", "inet_recvmsg")
    server.go_on()

    client.heard("received")
    logs.one_passed(
        ("nic.eth0", NIC_IN),
        ("ip", IP_IN),
        ("tcp", ["tcp_v4_rcv", "__inet_lookup_established", "tcp_v4_do_rcv", "tcp_rcv_established",
                 "tcp_queue_rcv", "sk_data_ready"]),
        ("socket", ["sk_data_ready"]),
    )  # fmt: skip
    logs.passed("socket", "sk_data_ready", "tcp_recvmsg")
    logs.mark()
    client.go_on()

    client.heard("closed")
    logs.passed("socket", "sock_close", "sock_release", "inet_release", "tcp_close")
    logs.passed("tcp", "tcp_close", "tcp_write_xmit", "tcp_transmit_skb")
    client.go_on()
    assert (client.result(), server.result()) == (50, 0)


def test_a_tcp_request_to_us(lab: Lab, logs: Logs, port: int) -> None:
    server = lab.ours("stream_server", port=port)
    server.heard("ready")
    logs.passed("socket", "sys_socket", "inet_bind", "inet_listen")
    logs.mark()
    server.go_on()
    client = lab.linux("stream_client", host=lab.address, port=port)
    for step in ("created", "connected", "sent"):
        client.heard(step)
        client.go_on()
    server.heard("asked")
    logs.passed(
        "tcp", "tcp_v4_rcv", "inet_lookup_listener", "tcp_v4_conn_request", "tcp_v4_rcv",
        "inet_csk_reqsk_queue_add",
    )  # fmt: skip
    logs.passed("socket", "inet_accept", "inet_csk_reqsk_queue_add", "sock_map_fd")
    server.go_on()
    client.heard("received")
    logs.mark()
    client.go_on()
    client.heard("closed")
    client.go_on()
    assert (client.result(), server.result()) == (50, 0)
    # The FIN: not on the fast path.
    logs.one_passed(
        ("tcp", ["tcp_v4_rcv", "tcp_v4_do_rcv", "tcp_rcv_established", "tcp_data_queue"])
    )
    logs.passed("tcp", "tcp_data_queue", "tcp_fin")


def test_a_datagram_out_and_in(lab: Lab, logs: Logs, port: int) -> None:
    server = lab.linux("datagram_server", port=port)
    server.heard("ready")
    server.go_on()
    client = lab.ours("datagram_client", host=lab.peer_address, port=port, size=30)
    client.heard("connected")
    logs.passed("socket", "sys_socket", "udp_init_sock", "sock_map_fd", "inet_dgram_connect")
    logs.mark()
    client.go_on()
    client.heard("received")
    logs.passed("socket", "sock_write", "sock_sendmsg", "inet_sendmsg", "udp_sendmsg")
    logs.one_passed(
        ("socket", ["udp_sendmsg"]),
        ("udp", ["udp_sendmsg", "udp_send_skb"]),
        ("ip", ["ip_send_skb", "ip_local_out", *IP_OUT]),
        ("nic.eth0", NIC_OUT),
    )
    logs.passed("socket", "sock_read", "sock_recvmsg", "inet_recvmsg", "udp_recvmsg")
    logs.one_passed(
        ("nic.eth0", NIC_IN),
        ("ip", IP_IN),
        ("udp", ["udp_rcv", "__udp4_lib_rcv", "udp_queue_rcv_skb"]),
        ("socket", ["sk_data_ready", "udp_recvmsg"]),
    )
    logs.passed("udp", "__udp4_lib_rcv", "__udp4_lib_lookup", "udp_queue_rcv_skb")
    client.go_on()
    assert (client.result(), server.result()) == (30, 30)
    logs.passed("socket", "sock_close", "sock_release", "inet_release")
    logs.passed("udp", "udp_lib_close")


def test_a_datagram_in_fragments(lab: Lab, logs: Logs, port: int) -> None:
    server = lab.linux("datagram_server", port=port)
    server.heard("ready")
    server.go_on()
    client = lab.ours("datagram_client", host=lab.peer_address, port=port, size=3000)
    client.heard("connected")
    client.go_on()
    client.heard("received")
    logs.passed("ip", "ip_send_skb", "ip_local_out", "ip_finish_output", "ip_fragment")
    logs.one_passed(("ip", ["ip_local_deliver", "ip_defrag"]))
    logs.passed("ip", "ip_defrag", "ip_defrag", "ip_defrag", "ip_local_deliver_finish")
    client.go_on()
    assert client.result() == 3000


def test_an_echo_and_its_reply(lab: Lab, logs: Logs) -> None:
    client = lab.ours("pinger", host=lab.peer_address)
    client.heard("received")
    logs.passed("socket", "sys_socket", "inet_create", "sock_map_fd", "sock_write", "inet_sendmsg")
    logs.passed("ip", "ping_v4_sendmsg", "ip_local_out")
    logs.one_passed(
        ("ip", [*IP_IN, "raw_local_deliver", "icmp_rcv", "ping_rcv"]),
    )
    client.go_on()
    assert client.result()[0] > 0


def test_arp_asks_and_is_answered(lab: Lab, logs: Logs) -> None:
    assert lab.tool("ip", "neigh", "flush", "dev", lab.peer_dev).returncode == 0
    done = lab.tool("ping", "-c", "1", "-W", "20", lab.address)
    assert "1 received" in done.stdout
    logs.one_passed(("nic.eth0", NIC_IN), ("ip", ["arp_rcv"]))
    logs.passed("ip", "arp_rcv", "arp_process", "arp_send")
    logs.one_passed(("nic.eth0", NIC_IN), ("ip", [*IP_IN, "icmp_rcv"]))
