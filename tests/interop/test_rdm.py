# SPDX-License-Identifier: MIT
"""examples/rdm in a running stack: plugged in, carrying messages to a raw socket of Linux's stack
and back, over the death of ip and of itself, and pulled out again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from skbus.bus.ctl import ControlError, ctl_call
from skbus.bus.rundir import RunDir
from skbus.core.pool import Pool
from skbus.stack.lab import status as lab_status
from skbusd.socket.core import SocketCore
from skbusd.socket.modalias import ModAlias
from skbusd.socket.modprobe import request_module
from skbusd.socket.netns import SocketNet

RDM = Path(__file__).parents[2] / "examples" / "rdm"
SKBUS = str(Path(sys.executable).with_name("skbus"))
NAME = f"rdm{os.getpid()}"
ALIAS = "net-pf-2-proto-253-type-4"

TRY = """
import errno, sys
from skbus import socket
try:
    sock = socket.socket(socket.AF_INET, 4, 253)
    sock.settimeout(60)
    if sys.argv[1:]:
        sock.sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
        print(sock.recv(100).decode())
    else:
        print("a socket")
except OSError as e:
    print(errno.errorcode[e.errno])
"""


def skbus(*argv: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [SKBUS, *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"not within 60 s: {what}"
        time.sleep(0.05)


class RdmLab:
    """A lab, Linux's peer in it, and the plug-in's process when it is plugged in."""

    def __init__(self) -> None:
        skbus("lab", "up", "--name", NAME)
        status = skbus("lab", "exec", "--name", NAME, "--", "env").stdout
        (line,) = [v for v in status.splitlines() if v.startswith("SKBUS_DIR=")]
        self.dir = line.partition("=")[2]
        self.run = RunDir(self.dir)
        self.env = {
            **os.environ,
            "SKBUS_DIR": self.dir,
            "PYTHONPATH": os.pathsep.join([str(RDM), os.environ.get("PYTHONPATH", "")]),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.epoch = 0
        self.peer = subprocess.Popen(
            [SKBUS, "lab", "exec", "--name", NAME, "--", sys.executable, str(RDM / "peer.py"), "7",
             "2"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.peer.stdout is not None
        assert self.peer.stdout.readline() == b"ready\n"

    def plug(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "skbus_rdm"], env=self.env)
        until(lambda: self.answers("rdm") > self.epoch, "rdm is up")
        self.epoch = self.answers("rdm")
        until(lambda: self.protocols().get(253) == "rdm", "rdm registers with ip")
        skbus("barrier", SKBUS_DIR=self.dir)  # the socket layer has heard of it, too

    def answers(self, process: str) -> int:
        """The epoch of a process that answers, 0 for one that does not."""
        try:
            return int(ctl_call(self.run, process, "status", seconds=5.0)["epoch"])
        except (ControlError, OSError):
            return 0

    def pull(self, sig: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(sig)
            self.process.wait(60)
            self.process = None

    def protocols(self) -> dict[int, str]:
        found = ctl_call(self.run, "ip", "status", seconds=60.0)["core"]["protocols"]
        return {int(p): process for p, process in found.items()}

    def rdm(self) -> Any:
        return ctl_call(self.run, "rdm", "status", seconds=60.0)["core"]

    def program(self, *argv: str, text: str = TRY, stdin: str = "") -> list[str]:
        done = subprocess.run(
            [sys.executable, *(("-c", text) if text else ()), *argv],
            input=stdin, capture_output=True, text=True, timeout=90, env=self.env,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def down(self) -> None:
        self.pull()
        self.peer.kill()
        self.peer.wait()
        assert self.peer.stdout is not None
        self.peer.stdout.close()
        skbus("lab", "down", "--name", NAME)


@pytest.fixture
def lab() -> Iterator[RdmLab]:
    found = RdmLab()
    try:
        yield found
    finally:
        found.down()


@pytest.mark.lab
def test_plug_in_of_a_running_stack(lab: RdmLab) -> None:
    environ = {"SKBUS_DIR": lab.dir}
    assert lab.program() == ["ESOCKTNOSUPPORT"]
    lab.plug()
    skbus("insmod", str(RDM / "skbus_rdm" / "rdm_prot.py"), **environ)
    assert lab.program() == ["a socket"]

    # The peer has ignored the first packets: they were sent again.
    client = str(RDM / "client.py")
    lines = lab.program(client, "10.77.0.1", text="", stdin="hello\nonce more\n" + "x" * 5000)
    assert lines == [
        "10.77.0.1:7 HELLO",
        "10.77.0.1:7 ONCE MORE",
        "10.77.0.1:7 " + "X" * 5000,
    ]
    counted = lab.rdm()
    assert counted["RetransMsgs"] >= 2
    assert counted["OutMsgs"] == counted["InMsgs"] == 3
    assert lab.program("10.77.0.1", "9") == ["ECONNREFUSED"]

    # ip is restarted, and knows of rdm again; rdm dies and comes back.
    epoch = lab.answers("ip")
    os.kill(lab_status(lab.run)["pids"]["ip"], signal.SIGKILL)
    until(lambda: lab.answers("ip") > epoch, "ip is back")
    until(lambda: lab.protocols().get(253) == "rdm", "rdm registers with the new ip")
    until(lambda: not ctl_call(lab.run, "ip", "ping", seconds=60)["missing"], "nic does, too")
    assert lab.program("10.77.0.1", "7") == ["HELLO"]
    lab.pull(signal.SIGKILL)
    lab.plug()
    assert lab.program("10.77.0.1", "7") == ["HELLO"]

    # And out again: no socket, no module, no protocol; and barriers pass.
    skbus("rmmod", "rdm_prot", **environ)
    assert skbus("lsmod", **environ).stdout == ""
    assert lab.program() == ["ESOCKTNOSUPPORT"]
    lab.pull()
    until(lambda: 253 not in lab.protocols(), "rdm unregisters")
    skbus("barrier", **environ)


def test_the_module_is_found_among_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pip install examples/rdm` would have it. No lab is needed, and no file is written that
    Python keeps."""
    info = tmp_path / "skbus_rdm-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: skbus-rdm\nVersion: 0.1.0\n")
    entry = f"[skbus.modules]\n{ALIAS} = skbus_rdm.rdm_prot\nnet-pf-38 = skbus_no_such_module\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(RDM))
    net = SocketNet(rand=Random(1), pool=Pool())
    SocketCore(net).start()
    now = [0.0]
    net.modprobe = ModAlias(net, {}, lambda: now[0])
    assert not request_module(net, "net-pf-2-proto-132")
    assert request_module(net, ALIAS)
    assert "RDM" in net.proto_list
    assert request_module(net, ALIAS)  # once more is no harm
    net.log_events.clear()
    assert not request_module(net, "net-pf-38")
    ((level, _, details, _),) = net.log_events
    assert level == "warning"
    assert "skbus_no_such_module" in str(details["text"])
    # What is installed later is found, but not at once: the list is read once a second at most.
    (info / "entry_points.txt").write_text(entry + "net-pf-39 = skbus_rdm.rdm_prot\n")
    assert not request_module(net, "net-pf-39")
    now[0] += 1
    assert request_module(net, "net-pf-39")
