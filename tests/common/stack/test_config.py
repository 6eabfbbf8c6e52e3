# SPDX-License-Identifier: MIT
"""Configuration: precedence, quantities, and errors that name the key."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from skbus.bus.rundir import _LONGEST_NAME, SUN_PATH_MAX, RunDir
from skbus.stack.config import (
    _ENV,
    _ENV_DEVICE,
    Clock,
    Config,
    ConfigError,
    Device,
    Impair,
    Log,
    Route,
)

FULL = """
[[devices]]
name = "eth1"
addr = "192.0.2.7/24"
gateway = "192.0.2.1"
impair = { loss = "1%", delay = "20ms", rate = "100mbit", seed = 7 }

[[routes]]
dst = "default"
gateway = "192.0.2.1"

[sysctl]
"net.ipv4.tcp_sack" = 0
"net.ipv4.tcp_rmem" = "4096 100000 200000"

[log]
level = "warning"
layers = { nic = "error", tcp = "debug" }
"""


def load(text: str, tmp_path: Path, **kw: Any) -> Config:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return Config.load(path, kw.get("overrides"), kw.get("environ", {}))


def test_file(tmp_path: Path) -> None:
    config = load(FULL, tmp_path)
    device = config.devices[0]
    assert device.addr == ["192.0.2.7/24"]
    assert (device.backend, device.mode, device.process) == ("af_packet", "own", "nic.eth1")
    assert device.impair.loss == pytest.approx(0.01)
    assert device.impair.delay == 20_000_000
    assert device.impair.rate == 100_000_000
    assert config.routes[0].dst == "0.0.0.0/0"
    assert config.sysctl["net.ipv4.tcp_sack"] == 0
    assert config.processes() == ["nic.eth1", "ip", "tcp", "udp", "socket"]


def test_log_levels_of_processes(tmp_path: Path) -> None:
    log = load(FULL, tmp_path).log
    assert [log.level_of(p) for p in ("nic.eth1", "tcp", "udp")] == ["error", "debug", "warning"]


def test_json_round_trip(tmp_path: Path) -> None:
    config = load(FULL, tmp_path)
    run = RunDir(tmp_path / "r").create()
    config.write(run)
    assert Config.read(run) == config


def test_precedence(tmp_path: Path) -> None:
    env = {"SKBUS_LOG_LEVEL": "error", "SKBUS_TIME_SCALE": "4", "SKBUS_DEV": "eth1"}
    env |= {"SKBUS_ADDR": "192.0.2.8/24", "SKBUS_SYSCTL": "net.ipv4.tcp_sack=1"}
    flags = {"clock": {"time_scale": 2.0}, "devices": [{"name": "eth1", "gateway": None}]}
    config = load(FULL, tmp_path, environ=env, overrides=flags)
    assert config.log.level == "error"
    assert config.clock.time_scale == 2.0
    assert config.sysctl["net.ipv4.tcp_sack"] == "1"
    device = config.devices[0]
    assert device.addr == ["192.0.2.8/24"], "the environment changes the file's device"
    assert device.gateway == "192.0.2.1", "what neither says stays the file's"


def test_no_file() -> None:
    config = Config.load(None, {"devices": [{"name": "eth0", "mtu": None}]}, {})
    assert config.devices == [Device(name="eth0")]
    assert not config.devices[0].impair


def test_file_by_environment(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('layers = ["ip"]')
    config = Config.load(environ={"SKBUS_CONFIG": str(tmp_path / "x.toml")})
    assert config.layers == ["ip"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[log]\nlevle = 'info'", r"log\.levle: no such key; did you mean level\?"),
        ("zzz = 1", r"zzz: no such key; known here: run_dir, devices"),
        ("[log]\nlevel = 'loud'", r"log\.level = 'loud': takes debug, info, warning or error"),
        (
            "[[devices]]\nname='e'\nimpair={loss='150%'}",
            r"devices\.e\.impair\.loss = '150%': takes a percentage",
        ),
        (
            "[[devices]]\nname='e'\nimpair={delay=20}",
            r"devices\.e\.impair\.delay = 20: takes a time with its unit",
        ),
        (
            "[[devices]]\nname='e'\nimpair={rate='1furlong'}",
            r"impair\.rate = '1furlong': takes a rate",
        ),
        ("[[devices]]\naddr='10.0.0.1/24'", r"devices\[0\]\.name: is missing"),
        ("[[devices]]\nname='e'\naddr='10.0.0.1'", r"addr = .*: lacks the prefix length: write 10"),
        (
            "[[devices]]\nname='e'\naddr='10.0.0.1/99'",
            r"addr = .*: takes an address with its prefix",
        ),
        ("[[devices]]\nname='e'\nmac='01:00:00:00:00:01'", r"mac = .*unicast"),
        ("[[devices]]\nname='e'\n[[devices]]\nname='e'", r"devices: e is listed twice"),
        ("[[routes]]\ndst='10.0.0.0/8'", r"routes\[0\]: takes a gateway, a dev, or both"),
        ("[[routes]]\ndst='10.0.0.0/8'\ndev='x'", r"routes: no device 'x'"),
        ("[[routes]]\ndst='ten'\ndev='x'", r"routes\[0\]\.dst = 'ten': takes a network"),
        ("[sysctl]\n'net.ipv4.tcp_sacks' = 1", r"sysctl: no such sysctl: net\.ipv4\.tcp_sacks"),
        (
            "[sysctl]\n'net.ipv4.tcp_sack' = 7",
            r"sysctl: net\.ipv4\.tcp_sack: 7 is outside 0 \.\. 1",
        ),
        ("[clock]\ntime_scale = 0", r"clock\.time_scale = 0: takes more than 0"),
        ("layers = ['arp']", r"layers\[0\] = 'arp': takes ip, tcp, udp or socket"),
        ("tcp_shards = 'two'", r"tcp_shards = 'two': takes a whole number"),
        (
            "[sysctl]\n'net.ipv4.tcp_sack' = 1.5",
            r"tcp_sack = 1\.5: takes a whole number or text or",
        ),
        ("log = 3", r"log = 3: takes a table"),
        ("devices = 3", r"devices = 3: takes a list"),
        ("not toml", r"is not TOML"),
    ],
)
def test_errors_name_the_key(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(text, tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.toml"):
        Config.load(tmp_path / "none.toml", environ={})


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"SKBUS_ADDR": "10.0.0.1/8"}, "SKBUS_ADDR: of which device"),
        ({"SKBUS_SYSCTL": "tcp_sack"}, "it takes name=value"),
        ({"SKBUS_TIME_SCALE": "slow"}, r"clock\.time_scale = 'slow'"),
    ],
)
def test_environment_errors(env: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Config.load(environ=env)


def test_unknown_device_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no device 'eth9'.*it has: eth1"):
        load(FULL, tmp_path).device("eth9")


def test_config_before_any_stack(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="skbus lab up"):
        Config.read(RunDir(tmp_path))


def test_a_change_is_made_to_what_is_there(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    Config.load(None, {"sysctl": {"net.ipv4.tcp_sack": 0}}, {}).write(run)

    def change(config: Config) -> None:
        config.sysctl = {**config.sysctl, "net.ipv4.ip_default_ttl": 7}

    Config.update(run, change)
    assert Config.read(run).sysctl == {"net.ipv4.tcp_sack": 0, "net.ipv4.ip_default_ttl": 7}


DOC = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_documented_file_is_valid_and_complete(tmp_path: Path) -> None:
    """docs/configuration.md shows every key there is, in a file that loads."""
    page = DOC.read_text()
    file = "".join(
        line.removeprefix("    ") for line in page.splitlines(True) if line.startswith("    ")
    )
    config = load(file, tmp_path)
    shown = tomllib.loads(file)
    assert set(shown) == set(Config.model_fields)
    assert set(shown["devices"][0]) == set(Device.model_fields)
    assert set(shown["devices"][0]["impair"]) == set(Impair.model_fields)
    assert set(shown["routes"][0]) == set(Route.model_fields)
    assert set(shown["log"]) == set(Log.model_fields)
    assert set(shown["clock"]) == set(Clock.model_fields)
    assert config.devices[0].impair.rate == 100_000_000
    for variable in (*_ENV, *_ENV_DEVICE, "SKBUS_CONFIG", "SKBUS_SYSCTL", "SKBUS_DEV"):
        assert f"`{variable}`" in page
    room = SUN_PATH_MAX - _LONGEST_NAME - 1
    assert f"at most {room} bytes" in page


# ---- fuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "fused"),
    [
        ([], ()),
        ("ip,tcp", ("ip", "tcp")),
        (["socket", "udp,nic"], ("nic.eth1", "udp", "socket")),
        ("nic.eth1, ip", ("nic.eth1", "ip")),
        ("all", ("nic.eth1", "ip", "tcp", "udp", "socket")),
    ],
)
def test_layers_that_live_in_one_process(given: object, fused: tuple[str, ...]) -> None:
    config = Config.load(None, {"devices": [{"name": "eth1"}], "fuse": given}, {})
    assert config.fused() == fused
    for process in config.processes():
        assert config.living_with(process) == (fused if process in fused else (process,))
    assert Config.load(None, None, {"SKBUS_FUSE": "ip,tcp"}).fuse == ["ip", "tcp"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fuse": "ip,tpc"}, "fuse: no layer 'tpc' here; there are: nic, ip, tcp, udp, socket"),
        ({"fuse": "ip,tcp", "layers": ["ip"]}, "fuse: no layer 'tcp' here"),
        ({"fuse": "tcp"}, "fuse takes two layers or more; tcp is one process"),
        ({"fuse": "nic"}, "fuse takes two layers or more; nic is one process"),
        ({"fuse": "all", "tcp_shards": 2}, "fuse: tcp has tcp_shards = 2.*fuse without tcp, or"),
        ({"fuse": "ip,nic", "devices": [{"name": "eth1"}, {"name": "eth2"}]},
         "fuse: there are several devices.*name nic.eth1 or nic.eth2"),
        ({"fuse": "ip,tcp", "interpreted": ["tcp"]}, "tcp would live in one process with ip"),
        ({"fuse": "ip,tcp", "affinity": {"tcp": [0]}}, "affinity: ip, tcp are one process"),
    ],
)  # fmt: skip
def test_layers_that_cannot_live_in_one_process(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Config.load(None, {"devices": [{"name": "eth1"}], **given}, {})


def test_of_several_devices_one_can_be_fused() -> None:
    devices = [{"name": "eth1"}, {"name": "eth2"}]
    config = Config.load(None, {"devices": devices, "fuse": "nic.eth2,ip"}, {})
    assert config.fused() == ("nic.eth2", "ip")
