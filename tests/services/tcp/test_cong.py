# SPDX-License-Identifier: MIT
"""The registry of congestion controls, the sysctls about it, and controls that are not ours."""

import errno
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from skbus.core import uapi
from skbus.core.sysctl import SysctlError
from skbus.packetdrill.config import Config
from skbus.packetdrill.report import Status
from skbus.packetdrill.run import run_file
from skbus.packetdrill.sim import SimBackend
from skbusd.tcp import congestion_plugins
from skbusd.tcp import const as c
from skbusd.tcp.congestion_plugins import (
    CongestionControlError,
    load_congestion_control,
    register_congestion_controls,
)
from skbusd.tcp.tcp_cong import (
    ALLOWED,
    AVAILABLE,
    CONGESTION_CONTROL,
    TcpCongestionOps,
    tcp_register_congestion_control,
    tcp_set_congestion_control,
    tcp_unregister_congestion_control,
)
from skbustest.tcphost import Conn, TcpHost

EXAMPLE = Path(__file__).parents[3] / "examples/congestion"
GENTLE = f"{EXAMPLE / 'gentle.py'}:Gentle"


class Mine(TcpCongestionOps):
    name = "mine"


def test_available_allowed_and_default_are_checked_when_they_are_set(host: TcpHost) -> None:
    sysctl = host.net.sysctl
    assert sysctl[AVAILABLE].split()[:2] == ["reno", "cubic"]
    with pytest.raises(SysctlError, match="no congestion control 'mine'; have: reno cubic"):
        sysctl.set(CONGESTION_CONTROL, "mine")
    with pytest.raises(SysctlError, match="no congestion control 'mine'"):
        sysctl.set(ALLOWED, "reno mine")
    with pytest.raises(SysctlError, match="can only be read"):
        sysctl.set(AVAILABLE, "reno")
    assert tcp_register_congestion_control(host.net, Mine()) == 0
    assert "mine" in sysctl[AVAILABLE].split()
    sysctl.set(CONGESTION_CONTROL, "mine")
    assert host.socket(2).ca_name == "mine"


def test_who_has_no_privilege_gets_what_is_allowed_and_the_default(host: TcpHost) -> None:
    net = host.net
    tcp_register_congestion_control(net, Mine())
    tp = host.socket(2)
    assert tcp_set_congestion_control(net, tp, "reno", False) == 0
    assert tcp_set_congestion_control(net, tp, "mine", False) == errno.EPERM
    assert tcp_set_congestion_control(net, tp, "other", False) == errno.ENOENT
    assert tcp_set_congestion_control(net, tp, "mine", True) == 0
    assert tcp_set_congestion_control(net, tp, "reno", False) == 0
    net.sysctl.set(ALLOWED, "mine  reno")
    assert net.sysctl[ALLOWED] == "mine reno"
    assert tcp_set_congestion_control(net, tp, "mine", False) == 0
    # the default is allowed without being listed
    assert tcp_set_congestion_control(net, tp, "cubic", False) == 0


def test_setsockopt_says_why_not(host: TcpHost) -> None:
    host.socket(2)
    assert host.setsockopt(2, uapi.SOL_TCP, c.TCP_CONGESTION, b"nothing") == errno.ENOENT
    assert host.setsockopt(2, uapi.SOL_TCP, c.TCP_CONGESTION, b"") == errno.EINVAL
    assert host.setsockopt(2, uapi.SOL_TCP, c.TCP_CONGESTION, b"reno\0rubbish") == 0


def test_names_that_sysctl_could_not_list_are_refused(host: TcpHost) -> None:
    for name in ("", "x" * 16, "two words", "n\u00e4me"):
        ca = type("Named", (TcpCongestionOps,), {"name": name})()
        assert tcp_register_congestion_control(host.net, ca) == errno.EINVAL


def test_a_control_in_use_stays(host: TcpHost) -> None:
    net = host.net
    assert tcp_unregister_congestion_control(net, "mine") == errno.ENOENT
    tcp_register_congestion_control(net, Mine())
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_TCP, c.TCP_CONGESTION, b"mine")
    assert tcp_unregister_congestion_control(net, "mine") == errno.EBUSY
    host.setsockopt(conn.sk, uapi.SOL_TCP, c.TCP_CONGESTION, b"cubic")
    assert tcp_unregister_congestion_control(net, "mine") == 0
    assert "mine" not in net.sysctl[AVAILABLE]
    assert tcp_unregister_congestion_control(net, "reno") == errno.EBUSY


def test_the_configuration_names_a_class_in_a_file_or_a_module(host: TcpHost) -> None:
    register_congestion_controls(host.net, [GENTLE])
    assert "gentle" in host.net.cong
    assert load_congestion_control("skbusd.tcp.tcp_cong:TcpReno").name == "reno"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("gentle", "it takes package.module:Class"),
        ("nowhere.py:Gentle", "FileNotFoundError"),
        ("no.such.module:Gentle", "ModuleNotFoundError"),
        ("skbusd.tcp.tcp_cong:NoSuch", "AttributeError"),
        ("skbusd.tcp.tcp_cong:RateSample", "is no TcpCongestionOps"),
    ],
)
def test_what_cannot_be_loaded_says_why(spec: str, why: str) -> None:
    with pytest.raises(CongestionControlError, match=why):
        load_congestion_control(spec)


def test_a_name_that_is_taken_is_an_error_of_the_configuration(host: TcpHost) -> None:
    with pytest.raises(CongestionControlError, match="there is a 'reno' already"):
        register_congestion_controls(host.net, ["skbusd.tcp.tcp_cong:TcpReno"])


def test_entry_points_are_registered_and_a_broken_one_is_only_logged(
    host: TcpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        EntryPoint("broken", "no.such.module:X", congestion_plugins.GROUP),
        EntryPoint("cubic", "skbusd.tcp.tcp_cubic:TcpCubic", congestion_plugins.GROUP),
        EntryPoint("mine", f"{__name__}:Mine", congestion_plugins.GROUP),
    ]
    monkeypatch.setattr(congestion_plugins, "entry_points", lambda group: points)
    monkeypatch.setattr(EntryPoint, "load", _load(points[2]))
    register_congestion_controls(host.net, [])
    assert "mine" in host.net.cong
    logged = [details for level, _, details, _ in host.net.log_events if level == "warning"]
    assert [d.get("entry_point") or d["name"] for d in logged] == ["no.such.module:X", "cubic"]


def _load(ours: EntryPoint) -> object:
    """EntryPoint.load, but for the class of this very module, which has no importable name."""
    real = EntryPoint.load
    return lambda point: Mine if point is ours else real(point)


def test_the_example_does_as_its_script_says() -> None:
    own = (load_congestion_control(GENTLE),)
    result = run_file(
        EXAMPLE / "gentle.pkt", lambda _: SimBackend(congestion_control=own), Config()
    )
    assert result.status is Status.PASSED, result.reason


def test_the_example_is_about_thirty_lines() -> None:
    code = (EXAMPLE / "gentle.py").read_text().split('"""', 2)[2]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 35
