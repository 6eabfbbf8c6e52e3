# SPDX-License-Identifier: MIT
"""`--live`: a script against the running processes of a lab.

The script's packets go over the lab's cable, by a helper in the peer's namespace (`peer`). The
remote host of a script is one behind the peer, to which nothing else speaks; the peer's kernel
drops what is sent to it. A barrier before each call, and before a packet is waited for, sees to
it that everything before has been dealt with.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from skbus.app.client import Client
from skbus.bus.ctl import ControlError, ctl_call
from skbus.bus.rundir import RunDir
from skbus.core.sysctl import Sysctl
from skbus.inet import proc
from skbus.packetdrill.backend import (
    CONGESTION_CONTROLS,
    Addresses,
    Pending,
    Reply,
    check_congestion_control,
)
from skbus.packetdrill.records import RECORD, read_records
from skbus.packetdrill.script import Unsupported
from skbus.stack.health import processes
from skbus.stack.lab import ADDRESS, PEER_ADDRESS, PEER_DEV, PREFIX, status
from skbus.stack.procfiles import asker

_SO_LINGER: Final = 13
_PATIENCE: Final = 30.0
"""Seconds that a busy process has to answer."""


def live_counters(run: RunDir) -> dict[str, int]:
    """All SNMP counters of a running stack."""
    total: dict[str, int] = {}
    for process in processes(run):
        for name, value in ctl_call(run, process, "counters", None, _PATIENCE).items():
            if isinstance(value, int):
                total[name] = total.get(name, 0) + value
    return total


def live_proc(run: RunDir, name: str) -> str | None:
    """The text of /proc/net/NAME of a running stack; None where there is no such file."""
    if name not in proc.NAMES:
        return None

    return proc.read(name, asker(run))


def live_tcp_metrics_flush(run: RunDir) -> None:
    """`ip tcp_metrics flush` of a running stack."""
    for process in processes(run, "tcp"):
        ctl_call(run, process, "tcp_metrics_flush", None, _PATIENCE)


def live_tso(run: RunDir, on: bool) -> None:
    """`ethtool -K DEV tso on|off` of a running stack."""
    for process in processes(run, "nic"):
        ctl_call(run, process, "tso", on, _PATIENCE)


class LivePending:
    """A system call in a thread of its own."""

    def __init__(self, backend: "LiveBackend") -> None:
        self._backend = backend
        self._reply: Reply | None = None
        self.finished = 0

    @property
    def done(self) -> bool:
        return self._reply is not None

    @property
    def reply(self) -> Reply:
        if self._reply is None:
            raise RuntimeError("the call has not returned yet")
        return self._reply

    def returned(self, reply: Reply) -> None:
        """It is done."""
        with self._backend.changed:
            self.finished = self._backend.now()
            self._reply = reply
            self._backend.changed.notify_all()


class LiveBackend:
    """The lab of a run directory (`backend.Backend`)."""

    offloads = True

    def __init__(self, run: RunDir) -> None:
        self.run = run
        status(run)  # LabError where there is none
        self.client = Client(run)
        config = json.loads(run.config_file.read_text())
        self._scale = float(config["clock"]["time_scale"])
        self.first_port = 20_000 + time.monotonic_ns() // 1_000_000 % 44_000
        self._zero = time.monotonic_ns()
        self.changed = threading.Condition()
        self._sent: deque[tuple[int, bytes]] = deque()
        self._injected = 0
        self._carried = 0
        self._settled = 0
        self._fds: set[int] = set()
        self._before: dict[str, Any] = {}
        self._tso = True
        self._helper: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    # ---- backend.Backend ---------------------------------------------------------------

    def start(self, addresses: Addresses, mtu: int) -> Addresses:
        command = [sys.executable, "-P", "-m", "skbus.packetdrill.peer"]
        self._helper = subprocess.Popen(
            [*command, str(self.run.path), PEER_DEV, ADDRESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._helper.stdout is not None
        line = self._helper.stdout.readline().split()
        if len(line) != 2:
            raise OSError("the helper in the peer's namespace has failed")
        self._head = bytes.fromhex(line[0].decode() + line[1].decode()) + b"\x08\x00"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # another remote host each time, as the stack may remember the last one's path MTU
        network = addresses.remote.rpartition(".")[0]
        remote = f"{network}.{1 + self.first_port % 254}"
        return Addresses(
            ADDRESS, PREFIX, PEER_ADDRESS, remote, addresses.bind_port, addresses.connect_port
        )

    def begin(self) -> None:
        self._barrier()
        self._zero = time.monotonic_ns()

    def now(self) -> int:
        return int((time.monotonic_ns() - self._zero) / self._scale)

    def wait(self, until: int, pending: Pending | None = None, *, packet: bool = False) -> None:
        with self.changed:
            while (left := until - self.now()) > 0 or (pending is not None and not left):
                if (packet and self._sent) or (pending is not None and pending.done):
                    return
                if left <= 0:
                    break
                patience = 0.001 if not isinstance(pending, LivePending | None) else 3600.0
                self.changed.wait(min(left * self._scale / 1e9, patience))
        if pending is not None and not pending.done:
            self._grace(pending)

    def inject(self, *packets: bytes) -> None:
        helper = self._helper
        assert helper is not None
        assert helper.stdin is not None
        for packet in packets:
            frame = self._head + packet
            helper.stdin.write(RECORD.pack(len(frame), 0) + frame)
        helper.stdin.flush()
        self._injected += len(packets)

    def settle(self) -> None:
        if self._settled < self._injected:
            self._barrier()

    def sent(self) -> tuple[int, bytes] | None:
        with self.changed:
            return self._sent.popleft() if self._sent else None

    def call(self, name: str, *args: object, data: bytes = b"") -> Pending:
        pending = LivePending(self)
        self.settle()
        threading.Thread(target=self._run, args=(pending, name, args, data), daemon=True).start()
        return pending

    def sysctl(self, name: str, value: str) -> None:
        everyone = processes(self.run)
        Sysctl().set(name, value)
        if name in CONGESTION_CONTROLS:
            status = ctl_call(self.run, processes(self.run, "tcp")[0], "status", None, _PATIENCE)
            check_congestion_control(name, value, status["core"]["congestion_controls"])
        if name not in self._before:
            self._before[name] = ctl_call(self.run, everyone[-1], "sysctl_get", name, _PATIENCE)
        try:
            for process in everyone:
                ctl_call(self.run, process, "sysctl_set", (name, value), _PATIENCE)
        except ControlError as e:
            raise ValueError(str(e)) from None

    def sysctls(self) -> Mapping[str, object]:
        every: dict[str, object] = ctl_call(
            self.run, processes(self.run)[-1], "sysctl_get", None, _PATIENCE
        )
        return every

    def mtu(self, mtu: int) -> None:
        raise Unsupported(f"an MTU of {mtu}: the lab's interface is its own (--sim has one)")

    def tcp_metrics_flush(self) -> None:
        live_tcp_metrics_flush(self.run)

    def tso(self, on: bool) -> None:
        live_tso(self.run, on)
        self._tso = on

    def counters(self) -> dict[str, int]:
        return live_counters(self.run)

    def proc(self, name: str) -> str | None:
        return live_proc(self.run, name)

    def close(self) -> None:
        linger = b"\1\0\0\0\0\0\0\0"
        for fd in self._fds:
            for call in (("setsockopt", fd, 1, _SO_LINGER, linger), ("close", fd)):
                try:
                    self.client.call(*call)
                except OSError:
                    pass
        for name, value in self._before.items():
            self.sysctl(name, " ".join(map(str, value)) if isinstance(value, list) else str(value))
        if not self._tso:
            self.tso(True)
        self.client.close()
        if self._helper is not None:
            self._helper.terminate()
            self._helper.wait()
            if self._reader is not None:
                self._reader.join()
            for pipe in (self._helper.stdin, self._helper.stdout):
                if pipe is not None:
                    pipe.close()

    # ---- inside ------------------------------------------------------------------------

    def _grace(self, pending: Pending) -> None:
        """A call takes real time: a moment in which one that does not block may return."""
        deadline = time.monotonic() + 0.001 * self._scale
        with self.changed:
            while not pending.done and (left := deadline - time.monotonic()) > 0:
                self.changed.wait(min(left, 0.001))

    def _barrier(self) -> None:
        injected = self._injected
        with self.changed:
            self.changed.wait_for(lambda: self._carried >= injected, _PATIENCE)
        self.client.call("barrier", -1)
        self._settled = injected

    def _run(self, pending: LivePending, name: str, args: tuple[object, ...], data: bytes) -> None:
        try:
            result, payload = self.client.call(name, *args, data=data)
        except OSError as e:
            text = e.strerror if e.strerror != os.strerror(e.errno or 0) else None
            pending.returned(Reply(e.errno or 0, text))
            return
        if name == "recvmsg":
            parts, address, flags, control = result
            payload = self.client.collect(parts, payload)
            result = (address, flags, control)
        elif name == "socket":
            self._fds.add(int(result))
        elif name == "accept4":
            result = result[:2]  # not the credit that may follow: nothing is posted here
            self._fds.add(int(result[0]))
        elif name == "sendmsg" and isinstance(result, tuple):
            result = result[0]
        elif name == "connect":
            result = None
        elif name == "close" and isinstance(args[0], int):
            self._fds.discard(args[0])
        pending.returned(Reply(0, result, payload))

    def _read(self) -> None:
        """The helper's records, until it ends."""
        assert self._helper is not None
        assert self._helper.stdout is not None
        buffer = b""
        while data := os.read(self._helper.stdout.fileno(), 1 << 20):
            records, buffer = read_records(buffer + data)
            with self.changed:
                for when, frame in records:
                    if not frame:
                        self._carried += 1
                    elif frame[12:14] == b"\x08\x00":
                        at = int((when - self._zero) / self._scale)
                        self._sent.append((at, frame[14:]))
                self.changed.notify_all()
