# SPDX-License-Identifier: MIT
"""`skbus up` and `skbus lab up`: what each option means to the configuration that the stack gets;
and those options of `skbus lab` that are about all labs. Labs are started in test_lab.py.
"""

import json
from pathlib import Path
from typing import Any, Protocol

import pytest

from skbus.bus.rundir import RunDir
from skbus.cli import up
from skbus.stack import lab
from skbus.stack.config import Config


class Skbus(Protocol):
    """Runs a command in this process (conftest.py)."""

    def __call__(self, *argv: str, env: dict[str, str] | None = None) -> Any: ...


class Started:
    """What a command would have started."""

    config: Config
    cable: lab.Cable


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found = Started()

    def lab_up(run: RunDir, config: str, cable: lab.Cable, **_: Any) -> dict[str, Any]:
        found.config, found.cable = Config.from_json(config), cable
        return {"lab": run.path.name, "up": True}

    def plain_up(config: Config) -> None:
        found.config = config

    monkeypatch.setattr(lab, "up", lab_up)
    monkeypatch.setattr(up, "_up", plain_up)
    return found


MODULE = Path(__file__).parents[3] / "examples" / "kernel" / "server.py"
TOML = "tcp_shards = 3\n[log]\nlevel = 'error'\n"
COMMANDS = {
    "lab up": ["lab", "up", "--name", "test-options"],
    "up": ["up", "--dev", "lo", "--addr", "192.0.2.7/24"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        (["--mtu", "1400"], "devices.0.mtu", 1400),
        (["--time-scale", "10"], "clock.time_scale", 10.0),
        (["--log-level", "debug"], "log.level", "debug"),
        (["--sysctl", "net.ipv4.tcp_sack=0"], "sysctl", {"net.ipv4.tcp_sack": "0"}),
        (["--sysctl", "net.ipv4.tcp_sack=0", "--sysctl", "net.ipv4.ip_default_ttl = 7"],
         "sysctl", {"net.ipv4.tcp_sack": "0", "net.ipv4.ip_default_ttl": "7"}),
        (["--module", f"{MODULE} port=7"], "modules", [f"{MODULE} port=7"]),
        (["--affinity", "spread"], "placement", "spread"),
        (["--tcp-shards", "2"], "tcp_shards", 2),
        (["--interpreted", "tcp"], "interpreted", ["tcp"]),
        (["--interpreted", "tcp,ip", "--interpreted", "nic"], "interpreted", ["tcp", "ip", "nic"]),
        (["--fuse", "ip,tcp,udp,socket"], "fuse", ["ip", "tcp", "udp", "socket"]),
        (["--fuse", "all"], "fuse", ["all"]),
        (["--loss", "5%"], "devices.0.impair.loss", 0.05),
        (["--delay", "20ms"], "devices.0.impair.delay", 20_000_000),
        (["--jitter", "5ms"], "devices.0.impair.jitter", 5_000_000),
        (["--reorder", "10%"], "devices.0.impair.reorder", 0.1),
        (["--dup", "1%"], "devices.0.impair.dup", 0.01),
        (["--corrupt", "0.1%"], "devices.0.impair.corrupt", 0.001),
        (["--rate", "100mbit"], "devices.0.impair.rate", 100_000_000),
        (["--loss", "1%", "--seed", "7"], "devices.0.impair.seed", 7),
        (["--config", "FILE"], "tcp_shards", 3),
        (["--config", "FILE", "--log-level", "info"], "log.level", "info"),
    ],
)  # fmt: skip
def test_an_option_is_a_key_of_the_configuration(
    skbus: Skbus, started: Started, tmp_path: Path,
    command: str, argv: list[str], key: str, value: object,
) -> None:  # fmt: skip
    file = tmp_path / "skbus.toml"
    file.write_text(TOML)
    run_dir = str(tmp_path / "r")
    given = [str(file) if a == "FILE" else a for a in argv]
    done = skbus(*COMMANDS[command], *given, env={"SKBUS_DIR": run_dir})
    assert done.returncode == 0, done.stderr
    found: Any = started.config
    for part in key.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value


def test_the_cable_of_a_lab(skbus: Skbus, started: Started, tmp_path: Path) -> None:
    skbus("lab", "up", "--mtu", "1400", "--gso-max-size", "131072")
    assert started.cable == lab.Cable(1400, 131072)
    done = skbus("lab", "up", "--gso-max-size", "1000")
    assert done.returncode == 2
    assert "--gso-max-size" in done.stderr


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        (["--dev", "lo", "--addr", "192.0.2.7/24"], "addr", ["192.0.2.7/24"]),
        (["--dev", "lo", "--addr", "192.0.2.7/24", "--gw", "192.0.2.1"], "gateway", "192.0.2.1"),
        (["--dev", "lo", "--addr", "192.0.2.7/24", "--mac", "02:00:00:00:00:07"], "mac",
         "02:00:00:00:00:07"),
        (["--dev", "lo", "--take-over"], "mode", "take-over"),
        (["--dev", "tap9", "--tap", "--addr", "192.0.2.7/24"], "backend", "tap"),
    ],
)  # fmt: skip
def test_the_interface_of_up(
    skbus: Skbus, started: Started, tmp_path: Path, argv: list[str], key: str, value: object
) -> None:
    done = skbus("up", *argv, env={"SKBUS_DIR": str(tmp_path / "r")})
    assert done.returncode == 0, done.stderr
    (device,) = started.config.devices
    assert device.name == argv[1]
    assert getattr(device, key) == value


# ---- all labs --------------------------------------------------------------------------------


@pytest.fixture
def two_labs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunDir]:
    """Never this user's own: other tests run beside this one."""
    found = [RunDir(tmp_path / name) for name in ("a", "b")]
    monkeypatch.setattr(lab, "labs", lambda: found)
    return found


def test_lab_list(skbus: Skbus, two_labs: list[RunDir], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "told", lambda run: {"lab": run.path.name, "up": True})
    done = skbus("lab", "list", "--json")
    assert [json.loads(line)["lab"] for line in done.stdout.splitlines()] == ["a", "b"]
    two_labs.clear()
    none = skbus("lab", "list")
    assert (none.returncode, none.stdout) == (0, "")
    assert "there is no lab; `skbus lab up` starts one" in none.stderr


def test_lab_down_all(
    skbus: Skbus, two_labs: list[RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[RunDir] = []

    def down(run: RunDir) -> bool:
        ended.append(run)
        return True

    monkeypatch.setattr(lab, "down", down)
    assert skbus("lab", "down", "--all").returncode == 0
    assert ended == two_labs
    wrong = skbus("lab", "down", "--all", "--name", "a")
    assert wrong.returncode == 2
    assert "it is either --name or --all" in wrong.stderr
