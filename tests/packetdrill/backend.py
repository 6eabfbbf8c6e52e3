# SPDX-License-Identifier: MIT
"""Lets the real packetdrill drive our running stack.

A harness (an adapter that serves packetdrill's socket calls from a shared library) wants a class
with one method per system call; this is ours, on the client library:

    PYTHONPATH=tests/packetdrill adapter.py --backend backend:SkbusBackend

SKBUS_DIR names the stack's run directory. The stack is one of its own for each script:

    skbus up --dev tun0 --addr 192.168.0.1/16 --gw 192.168.0.2 --mtu 1500

and is ready when `skbus barrier` returns (`live.sh` does that). The MTU is to be 1500, whatever the
cable allows. Timing is the machine's: use 20 ms of tolerance and a calm machine, or (`live.sh`'s
SCALE) a stack and a harness that are both slower than life.

`settle` is a barrier (docs/architecture.md, "Time and barriers"): a packet that was put on the wire
before a call has been dealt with when the call is made.
"""

import errno
import ipaddress
import json
import sys
import time
from typing import Any, Final

from skbus.app.client import Client
from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.core.syscall import RecvmsgArgs, SendmsgArgs
from skbus.packetdrill.backend import Reply
from skbus.packetdrill.commands import switched
from skbus.packetdrill.epoll import Epolls
from skbus.packetdrill.live import live_counters, live_proc, live_tcp_metrics_flush, live_tso
from skbus.packetdrill.shell import Asked, run_command
from skbus.stack.health import processes

Address = tuple[Any, ...]
"""(family, host, port), or (family,)"""

Base: Any = getattr(sys.modules.get("adapter"), "Backend", object)
"""The harness's class, where there is a harness."""

SOL_SOCKET: Final = 1
SO_LINGER: Final = 13


class _Done:
    """A call that has returned, as `Epolls` wants it."""

    done = True
    finished = 0

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class _Now:
    """What `Epolls` needs of a backend."""

    def __init__(self, client: Client, scale: float) -> None:
        self._client = client
        self._scale = scale

    def now(self) -> int:
        return int(time.monotonic_ns() / self._scale)

    def wait(self, until: int, pending: object = None, *, packet: bool = False) -> None:
        """Calls return before they are asked about."""

    def call(self, name: str, *args: object, data: bytes = b"") -> _Done:
        try:
            result, payload = self._client.call(name, *args, data=data)
        except OSError as e:
            return _Done(Reply(e.errno or errno.EIO))
        return _Done(Reply(0, result, payload))


class SkbusBackend(Base):  # type: ignore[misc]
    """One session of packetdrill on our stack."""

    def __init__(self) -> None:
        self.run = RunDir().require()
        self.client = Client(self.run)
        config = json.loads(self.run.config_file.read_text())
        self.scale = float(config["clock"]["time_scale"])
        self.epolls = Epolls(_Now(self.client, self.scale))  # type: ignore[arg-type]
        self.settled = 0
        self.fds: set[int] = set()
        self.before: dict[str, Any] = {}

    def close_all(self) -> None:
        """Drop every socket with a reset, and put the sysctls back."""
        for fd in tuple(self.fds):
            for call in (
                ("setsockopt", fd, SOL_SOCKET, SO_LINGER, b"\1" + bytes(7)),
                ("close", fd),
            ):
                try:
                    self.client.call(*call)
                except OSError:
                    pass
        self.fds.clear()
        for name, value in self.before.items():
            text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            self._set(name, text)
        self.before.clear()
        self.client.close()

    def settle(self, injected: int) -> None:
        """Return when all packets that were injected have been dealt with."""
        if self.settled != injected:
            self.client.call("barrier", -1)
            self.settled = injected

    def sysctl(self, name: str, value: str) -> None:
        """Set one, until the session ends; what we do not have is left out."""
        try:
            if name not in self.before:
                everyone = processes(self.run)
                self.before[name] = ctl_call(self.run, everyone[-1], "sysctl_get", name)
            self._set(name, value)
        except Exception as e:  # noqa: BLE001 (a script goes on as it does where sysctl fails)
            self.before.pop(name, None)
            sys.stderr.write(f"sysctl {name}={value}: {e}\n")

    def command(self, cmd: str, cwd: str) -> tuple[int, bytes]:
        """Run a shell command of the script: (wait status, output)."""
        outcome = run_command(
            cmd, cwd, Asked(lambda: live_counters(self.run), proc=lambda n: live_proc(self.run, n))
        )
        for name, value in outcome.sysctls:
            self.sysctl(name, value)
        for program, *args in outcome.others:
            if program == "ip" and "tcp_metrics" in args:
                live_tcp_metrics_flush(self.run)
            if program == "ethtool" and (on := switched(args, "tso")) is not None:
                live_tso(self.run, on)
        return outcome.status << 8, outcome.output.encode()

    def _set(self, name: str, value: str) -> None:
        for process in processes(self.run):
            ctl_call(self.run, process, "sysctl_set", (name, value))

    # ---- calls -------------------------------------------------------------------------

    def socket(self, domain: int, type: int, protocol: int) -> int:
        fd = int(self.client.call("socket", domain, type, protocol)[0])
        self.fds.add(fd)
        return fd

    def bind(self, fd: int, addr: Address) -> None:
        self.client.call("bind", fd, _pack(addr))

    def listen(self, fd: int, backlog: int) -> None:
        self.client.call("listen", fd, backlog)

    def accept(self, fd: int) -> tuple[int, Address]:
        (new, addr), _ = self.client.call("accept4", fd, 0, -1)
        self.fds.add(int(new))
        return int(new), _unpack(addr)

    def connect(self, fd: int, addr: Address) -> None:
        self.client.call("connect", fd, _pack(addr), -1)

    def send(
        self,
        fd: int,
        data: bytes,
        flags: int,
        control: list[tuple[int, int, bytes]],
        addr: Address | None,
    ) -> int:
        to = _pack(addr) if addr else None
        cmsgs = tuple(control)
        return int(
            self.client.call(
                "sendmsg", *SendmsgArgs(fd, flags=flags, addr=to, control=cmsgs), data=bytes(data)
            )[0]
        )

    def recv(
        self, fd: int, size: int, flags: int, control_size: int
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Address | None]:
        result, payload = self.client.call(
            "recvmsg", *RecvmsgArgs(fd, size, controllen=control_size, flags=flags)
        )
        parts, addr, msg_flags, control = result
        data = self.client.collect(parts, payload)
        cmsgs = [(c[0], c[1], c[2]) for c in control]
        return data, cmsgs, msg_flags, _unpack(addr) if addr else None

    def shutdown(self, fd: int, how: int) -> None:
        self.client.call("shutdown", fd, how)

    def close(self, fd: int) -> None:
        if not self.epolls.close(fd):
            self.epolls.forget(fd)
            self.fds.discard(fd)
            self.client.call("close", fd)

    def getsockopt(self, fd: int, level: int, name: int, size: int) -> bytes:
        return bytes(self.client.call("getsockopt", fd, level, name, size)[0])

    def setsockopt(self, fd: int, level: int, name: int, value: bytes) -> None:
        self.client.call("setsockopt", fd, level, name, bytes(value))

    def fcntl(self, fd: int, cmd: int, arg: int) -> int:
        return int(self.client.call("fcntl", fd, cmd, arg)[0])

    def ioctl(self, fd: int, request: int) -> tuple[int, int]:
        return 0, int(self.client.call("ioctl", fd, request)[0])

    def poll(self, fds: list[tuple[int, int]], timeout: int) -> list[int]:
        wait = timeout * 1_000_000 if timeout >= 0 else -1
        result, _ = self.client.call("poll", tuple((fd, events) for fd, events in fds), wait)
        ready = {fd: int(revents) for fd, revents in result}
        return [ready.get(fd, 0) for fd, _ in fds]

    def epoll_create(self) -> int:
        return self.epolls.create()

    def epoll_ctl(self, epfd: int, op: int, fd: int, events: int) -> None:
        err = self.epolls.ctl(epfd, op, fd, events, fd)
        if err:
            raise OSError(err, "epoll_ctl")

    def epoll_wait(self, epfd: int, maxevents: int, timeout: int) -> list[tuple[int, int]]:
        wait = timeout * 1_000_000 if timeout >= 0 else -1
        pending = self.epolls.wait(epfd, maxevents, wait)
        while not pending.done:
            time.sleep(0.0005 * self.scale)
        return [(data, events) for events, data in pending.reply.result]


def _pack(addr: Address) -> tuple[int, int, bytes]:
    if len(addr) == 1:
        return int(addr[0]), 0, b""
    return int(addr[0]), int(addr[2]), ipaddress.ip_address(addr[1]).packed


def _unpack(addr: tuple[int, int, bytes]) -> Address:
    return addr[0], str(ipaddress.ip_address(addr[2])), addr[1]
