# SPDX-License-Identifier: MIT
"""`skbus load` as it is typed: each documented option does what its help says."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from skbus.bus.rundir import RunDir, default_base
from skbus.load import server
from skbus.load.place import Lab, Loopback, PlaceError, Up, find
from skbus.load.scenario import library

SKBUS = str(Path(sys.executable).with_name("skbus"))


def skbus(cwd: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("SKBUS_SCENARIOS", "SKBUS_DIR")}
    done = subprocess.run(
        [SKBUS, "load", *arguments],
        cwd=cwd,
        env={**kept, "SKBUS_DIR": str(cwd / "none"), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def outcome(directory: Path, name: str = "smoke") -> dict[str, Any]:
    data: dict[str, Any] = json.loads((directory / f"{name}.json").read_text())
    return data


def test_list_in_an_empty_directory(tmp_path: Path) -> None:
    code, out, err = skbus(tmp_path, "--list")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(library())
    assert "smoke                 A little of every protocol: for the tests, and to see" in out
    (tmp_path / "mine.toml").write_text(
        'description = "of my own"\nphase = [{ name = "p", duration = "1s" }]\n'
        'flow = [{ name = "f", protocol = "udp" }]\n'
    )
    (tmp_path / "wrong.toml").write_text("x = 1")
    _, out, _ = skbus(tmp_path, "--list", SKBUS_SCENARIOS=str(tmp_path))
    assert out.splitlines()[0].split(maxsplit=1) == ["mine", "of my own"]
    assert out.splitlines()[1].startswith("wrong                 flow: is missing (")


def test_which_scenario(tmp_path: Path) -> None:
    code, _, err = skbus(tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "skbus load --list" in err
    code, _, err = skbus(tmp_path, "smok")
    assert code == 2
    assert "no scenario 'smok': did you mean smoke? There are datagrams" in err


def test_check_time_and_set(tmp_path: Path) -> None:
    assert skbus(tmp_path, "smoke", "--check") == (0, "smoke: 1.5 s, 6 flows: ok\n", "")
    assert skbus(tmp_path, "smoke", "--check", "--time", "2")[1] == "smoke: 3 s, 6 flows: ok\n"
    code, _, err = skbus(tmp_path, "smoke", "--check", "--time", "0")
    assert (code, err) == (2, "skbus load: --time: must be more than 0\n")
    code, _, err = skbus(tmp_path, "smoke", "--check", "--set", "flow.web.rat=3")
    assert code == 2
    assert "flow.web.rat: no such key; did you mean rate?" in err
    code, _, err = skbus(tmp_path, "smoke", "--check", "--set", "flow.web.rate")
    assert code == 2
    assert "KEY=VALUE" in err
    code, _, err = skbus(tmp_path, "smoke", "--check", "--clients", "windows")
    assert code == 2
    assert "side = 'windows': takes linux or skbus" in err
    assert not list(tmp_path.iterdir())


def test_a_run_over_the_loopback(tmp_path: Path) -> None:
    code, out, err = skbus(
        tmp_path, "smoke", "--on", "loopback", "--time", "0.2", "--out", "reports", "--clients",
        "skbus", "--set", "flow.web.rate=7", "--set", 'assert=["errors == 0"]', "-q",
    )  # fmt: skip
    assert (code, err) == (0, ""), out
    assert "ok           errors == 0    (0)" in out
    assert out.endswith("reports/smoke.html\n             reports/smoke.json\n")
    scenario = outcome(tmp_path / "reports")["scenario"]
    assert scenario["side"] == "skbus"
    assert next(f for f in scenario["flow"] if f["name"] == "web")["rate"] == 7
    assert sum(float(p["duration"][:-1]) for p in scenario["phase"]) == pytest.approx(0.3)


def test_progress_and_the_default_directory(tmp_path: Path) -> None:
    errors = 'assert=["errors == 0"]'  # how many requests there are, a busy machine says
    code, _, err = skbus(tmp_path, "smoke", "--on", "loopback", "--time", "0.2", "--set", errors)
    assert code == 0
    assert "errors 0" in err
    assert (tmp_path / "load-out/smoke.html").exists()


def test_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = skbus(tmp_path, "smoke")
    assert code == 2
    assert "no stack in" in err
    assert "--on new-lab" in err
    code, _, err = skbus(tmp_path, "smoke", "--on", "mars")
    assert (code, err) == (2, "skbus load: --on mars: takes stack, new-lab or loopback\n")
    run = RunDir(tmp_path / "run")
    state: dict[str, Any] = {}
    monkeypatch.setattr("skbus.load.place.read_state", lambda _: state)
    assert find("stack", run, "192.0.2.9") == Up(run, "192.0.2.9")
    assert Up(run, "192.0.2.9").address("skbus") == "192.0.2.9"
    state["lab"] = {}
    assert find("stack", run) == Lab(run)
    assert find("loopback", run) == Loopback()
    for on in ("stack", "loopback"):
        with pytest.raises(PlaceError, match=r"--host 192.0.2.9: .*has addresses of its own"):
            find(on, run, "192.0.2.9")
    code, _, err = skbus(tmp_path, "smoke", "--on", "new-lab", "--host", "192.0.2.9")
    assert code == 2
    assert "a new lab has addresses of its own" in err


@pytest.mark.parametrize("kind", ["echo", "udp"])
def test_a_port_that_is_taken_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    type_ = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, type_) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind != "udp":
            taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(server, "PORTS", {kind: port})
        job = {"side": "linux", "address": "127.0.0.1", "any_port": False}
        trio.run(server.main, job)
    said = json.loads(capsys.readouterr().out)["error"]
    way = "UDP" if kind == "udp" else "TCP"
    assert said.startswith(f"cannot listen at {way} port {port} ({kind}): another program has that")


@pytest.mark.lab
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_new_lab(tmp_path: Path, number: signal.Signals) -> None:
    """However it ends: as soon as the load goes on, it is told to stop."""
    process = subprocess.Popen(
        [SKBUS, "load", "smoke", "--on", "new-lab", "--time", "100"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    run = default_base() / f"load-{process.pid}"
    assert "errors" in process.stderr.readline()
    assert run.exists()
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert (tmp_path / "load-out/smoke.html").exists()
    deadline = time.monotonic() + 30
    while run.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not run.exists()
    found = subprocess.run(["pgrep", "-f", str(run)], capture_output=True, text=True, check=False)
    assert not found.stdout
