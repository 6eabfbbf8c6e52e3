# SPDX-License-Identifier: MIT
"""Real tools against our stack. Where the outcome is not plain, Linux in our place gives it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable, Lab, Reference

pytestmark = pytest.mark.lab

Need = Callable[..., None]


def test_curl_fetches_from_our_server(lab: Lab, port: int, need: Need) -> None:
    need("curl")
    lab.serve("http", port)
    url = f"http://{lab.address}:{port}/"
    told = "%{http_code} %{size_download} %{num_connects}\\n"
    null = ["-o", "/dev/null"]
    done = lab.tool("curl", "-sS", "-w", told, *null, url, *null, url)
    assert done.returncode == 0, done.stderr
    first, second = (line.split() for line in done.stdout.splitlines())
    assert (first[0], first[2]) == ("200", "1")
    assert int(first[1]) > 0
    assert second == ["200", first[1], "0"], "the second request takes the same connection"


@pytest.mark.slow
def test_wrk_sees_no_socket_error(lab: Lab, port: int, need: Need) -> None:
    need("wrk")
    lab.serve("http", port)
    url = f"http://{lab.address}:{port}/"
    done = lab.tool("wrk", "-t", "2", "-c", "50", "-d", "10s", "--timeout", "60s", url)
    assert done.returncode == 0, done.stderr
    assert "Socket errors" not in done.stdout, done.stdout
    assert "Non-2xx" not in done.stdout, done.stdout
    requests = re.search(r"(\d+) requests in", done.stdout)
    assert requests is not None
    assert int(requests[1]) > 0
    assert lab.alive()


def test_ping_flood_loses_nothing(cable: Cable, need: Need) -> None:
    need("ping", "iputils-ping")
    # an ordinary user's flood is not more than 500 a second
    slow = () if os.geteuid() == 0 else ("-i", "0.002")
    said = cable.pings(2000, "-f", *slow, "-q")
    assert "2000 received, 0% packet loss" in said, said
    assert "duplicates" not in said


def test_ping_in_fragments(cable: Cable, need: Need) -> None:
    need("ping", "iputils-ping")
    for size in ("1472", "1473", "20000", "65507"):
        said = cable.pings(5, "-q", "-i", "0.02", "-s", size)
        assert "5 received, 0% packet loss" in said, f"size {size}: {said}"


@pytest.mark.parametrize("method", ["udp", "icmp", "tcp"])
def test_traceroute_arrives_at_the_first_hop(cable: Cable, need: Need, method: str) -> None:
    need("traceroute")
    options = {"udp": [], "icmp": ["-I"], "tcp": ["-T", "-p", "1"]}[method]
    done = cable.tool("traceroute", "-n", "-m", "4", "-w", "10", *options, cable.address)
    hops = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [hop[:2] for hop in hops] == [["1", cable.address]], done.stdout
    assert "*" not in hops[0]


def as_of_linux(
    lab: Lab, reference: Reference, answers: Callable[[Cable, str], Any]
) -> tuple[Any, Any]:
    """What a tool says of us, and of Linux. Tools give up waiting at times of their own, which may
    be too short for a busy machine: where the two differ they are asked again, more patiently."""
    for patience in PATIENCE:
        seen = answers(lab, patience), answers(reference, patience)
        if seen[0] == seen[1]:
            break
    return seen


PATIENCE = ("100ms", "1s", "3s")


def _ports(output: str) -> list[list[str]]:
    """nmap's lines about ports: port, state, service, reason."""
    return [line.split() for line in output.splitlines() if re.match(r"\d+/(tcp|udp) ", line)]


@pytest.mark.parametrize("scan", ["-sS", "-sT", "-sX", "-sA", "-sU"])
def test_nmap_sees_what_it_sees_of_linux(
    lab: Lab, reference: Reference, ports: list[int], need: Need, scan: str
) -> None:
    need("nmap")
    opened, closed = next(iter(ports)), next(iter(ports))
    for cable in (lab, reference):
        cable.serve("http", opened)

    def answers(cable: Cable, patience: str) -> Any:
        done = cable.tool(
            "nmap", "-n", "-Pn", scan, "--reason", "--max-retries", "1",
            "--min-rtt-timeout", patience, "-p", f"{opened},{closed}", cable.address,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return _ports(done.stdout)

    ours, linux = as_of_linux(lab, reference, answers)
    assert len(linux) == 2
    assert ours == linux


def test_odd_flags_are_answered_as_linux_does(
    lab: Lab, reference: Reference, ports: list[int]
) -> None:
    opened, closed = next(iter(ports)), next(iter(ports))
    seen = []
    for cable in (lab, reference):
        cable.serve("http", opened)
        probe = cable.linux(
            "odd_segments",
            source=cable.peer_address,
            host=cable.address,
            ports=[opened, closed],
        )
        seen.append(probe.result()["replies"])
    ours, linux = seen
    assert len(linux) > 50
    assert ours == linux
    assert lab.alive()


def _hping(output: str) -> dict[str, str] | None:
    """The fields of the first answer, without those that change from packet to packet."""
    found = re.search(r"^len=.*$", output, re.MULTILINE)
    if found is None:
        return None
    fields = dict(field.split("=") for field in found[0].split() if "=" in field)
    return {k: fields[k] for k in ("len", "ttl", "flags", "seq")}


def test_hping3_sees_what_it_sees_of_linux(
    lab: Lab, reference: Reference, ports: list[int], need: Need
) -> None:
    need("hping3")
    opened, closed = next(iter(ports)), next(iter(ports))
    for cable in (lab, reference):
        cable.serve("http", opened)

    def answers(cable: Cable, _: str) -> Any:
        found: dict[str, Any] = {}
        for port, flags in (
            (opened, "-S"), (opened, "-A"), (opened, "-SA"), (opened, "-FPU"),
            (closed, "-S"), (closed, "-A"), (closed, "-F"), (closed, "-XY"),
        ):  # fmt: skip
            done = cable.tool("hping3", "-n", "-c", "1", "-p", str(port), flags, cable.address)
            which = "open" if port == opened else "closed"
            found[f"{which} {flags}"] = _hping(done.stdout)
        icmp = cable.tool("hping3", "-n", "-c", "1", "--icmp", "--icmp-ts", cable.address)
        found["timestamp"] = {"told": str("ICMP timestamp" in icmp.stdout)}
        return found

    ours, linux = as_of_linux(lab, reference, answers)
    assert linux["closed -S"] is not None
    assert ours == linux


@pytest.mark.parametrize("reverse", [False, True])
def test_iperf3_measures_us(lab: Lab, port: int, need: Need, reverse: bool) -> None:
    need("iperf3")
    lab.serve("iperf3", port)
    back = ["-R"] if reverse else []
    done = lab.tool("iperf3", "-c", lab.address, "-p", str(port), "-t", "1", "-P", "2", *back)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "receiver" in done.stdout
