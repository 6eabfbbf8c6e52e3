# SPDX-License-Identifier: MIT
"""A layer that is restarted runs the code that is on the disk: whether that has changed, and what
the layer becomes then."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from skbus.bus.rundir import RunDir
from skbus.stack import layer
from skbus.stack.config import Config
from skbus.stack.sources import Sources
from skbus.stack.supervise import BACKOFF, BACKOFF_MAX, backoff


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module of ours that is loaded."""
    file = tmp_path / "made_up.py"
    file.write_text("ONE = 1\n")
    made_up = ModuleType("skbus.made_up")
    made_up.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "skbus.made_up", made_up)
    return file


def test_what_changes_is_told(module: Path) -> None:
    sources = Sources()
    assert len(sources) > 10
    assert sources.changed() == []
    module.write_text("ONE = 2\n")
    os.utime(module, ns=(1, 1))
    assert sources.changed() == [str(module)]
    sources = Sources()
    module.replace(module.with_name("other.py"))
    assert sources.changed() == [str(module)]


def test_layers_are_loaded_and_one_that_cannot_be_is_left_to_its_process() -> None:
    layer.load(["nic.eth0", "nonsense", "udp"])
    assert "skbusd.nic.main" in sys.modules
    assert "skbusd.udp.main" in sys.modules


def test_a_layer_whose_code_has_changed_becomes_a_fresh_python(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    ran: list[str] = []

    def execv(_: str, argv: list[str]) -> None:
        became.append(argv)
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(layer, "start_log", lambda *_, **__: None)
    monkeypatch.setattr(layer, "run_process", lambda *given: ran.append(given[2]))
    run = RunDir(tmp_path / "r")
    sources = Sources()
    layer.run_supervised(run, Config(), "tcp", None, sources=sources)
    assert (ran, became) == (["tcp"], [])
    module.unlink()
    device = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(SystemExit):
        layer.run_supervised(run, Config(), "nic.eth0", device, sources=sources)
    assert os.get_inheritable(device)
    os.close(device)
    (argv,) = became
    expected = ["-P", "-m", "skbus.stack.layer", str(run.path), "nic.eth0", str(device), "0"]
    assert argv[1:] == expected
    assert ran == ["tcp"]


def test_the_first_restart_is_at_once() -> None:
    assert [backoff(n) for n in range(4)] == [0.0, BACKOFF, 2 * BACKOFF, 4 * BACKOFF]
    assert backoff(60) == BACKOFF_MAX
