# SPDX-License-Identifier: MIT
"""The drivers against the kernel, on interfaces in a namespace made for each test."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from skbus.core.skbuff import CHECKSUM_NONE, CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY

PROGRAM = Path(__file__).with_name("lab_program.py")
UNSHARE = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]

pytestmark = pytest.mark.lab


def possible() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if not possible():
    pytest.skip("no network namespaces for this user", allow_module_level=True)


def run(*arguments: str) -> dict[str, Any]:
    """Run a part of `lab_program` in a new network namespace."""
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-W", "error", str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["conserved"]
    assert result["in_use"] == 0
    return result


def exchanged(result: dict[str, Any]) -> bool:
    """A megabyte went each way, and the kernel found no bad checksum."""
    return bool(result["down_equal"] and result["up_equal"] and result["checksum_errors"] == 0)


@pytest.mark.parametrize("option", [(), ("fd",), ("auxdata",)])
def test_super_segments_pass_whole_both_ways(option: tuple[str, ...]) -> None:
    result = run("veth", *option)
    assert exchanged(result)
    assert result["largest"] > 20_000
    assert result["ip_summed"] == [CHECKSUM_PARTIAL]
    # two megabytes in so few packets were not cut
    assert result["mib"]["DevTxPackets"] < 400
    assert "DevGsoPackets" not in result["mib"]


def test_checksums_are_right_where_the_kernel_computes_and_verifies_them() -> None:
    result = run("veth", "offloads-off")
    assert exchanged(result)
    assert CHECKSUM_NONE in result["ip_summed"]
    assert result["mib"]["DevGroMerged"] > 100


def test_our_own_segmentation_and_checksums_are_accepted_by_the_kernel() -> None:
    result = run("veth", "no-vnet-hdr")
    assert exchanged(result)
    assert result["mib"]["DevGsoSegs"] > 700
    # what GRO has joined is left to be summed again
    assert CHECKSUM_UNNECESSARY in result["ip_summed"]
    assert CHECKSUM_NONE not in result["ip_summed"]


def test_link_changes_are_survived() -> None:
    result = run("link")
    assert result["seen"] == [True, True]
    # How often it is looked at while it is down is the machine's affair.
    told = [up for up, _ in groupby(result["registered"])]
    downs = [[up, mtu] for up, mtu in told if not up]
    assert [mtu for up, mtu in told if up] == [1500, 1500, 1400, 1500]
    assert [up for up, _ in groupby(told, lambda t: t[0])] == [True, False, True, False, True]
    assert downs[0] == [False, 1500]
    assert downs[1] == [False, 1400]
    assert result["drops"]["SKB_DROP_REASON_DEV_READY"] == 1


def test_frames_that_overrun_the_buffer_are_counted() -> None:
    result = run("flood")
    assert result["missed"] > 0
    # the kernel's own few packets come on top
    assert 0 <= result["unknown"] + result["missed"] - result["n"] < 50
    assert result["drops"]["SKB_DROP_REASON_FULL_RING"] == result["missed"]


def test_tagged_frames_are_filtered_or_told_by_auxdata() -> None:
    result = run("vlan")
    assert result["seen"] == [-1, -1, -1, -1]
    # (of two tags, the kernel takes out the first)
    assert result["drops"]["SKB_DROP_REASON_OTHERHOST"] == 1
    result = run("vlan", "auxdata")
    assert result["seen"] == [0, 0xA000, 0x6000, -1]
    assert result["drops"]["SKB_DROP_REASON_OTHERHOST"] == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="sysctls of a namespace need root")
def test_what_will_go_wrong_is_said_with_its_remedy() -> None:
    result = run("conflicts")
    assert result["quiet"] == ["", "", ""]
    assert "/conf/ours/forwarding is 1" in result["forwarding"]
    assert "net.core.rmem_max" in result["buffer"]


@pytest.mark.skipif(not os.access("/dev/net/tun", os.W_OK), reason="no access to /dev/net/tun")
def test_tap() -> None:
    result = run("tap")
    assert exchanged(result)
    assert result["largest"] > 20_000
    assert result["ip_summed"] == [CHECKSUM_PARTIAL]
