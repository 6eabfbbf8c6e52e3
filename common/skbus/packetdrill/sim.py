# SPDX-License-Identifier: MIT
"""`--sim`: a script against the cores of the five processes, in virtual time.

The stack is a host of a `skbus.testing.World`. The far end of its only link is a bare port, which
answers ARP for everybody and otherwise is the script. Nothing is random and nothing sleeps. A
script of a minute takes milliseconds, and every timer fires when it should.
"""

import ipaddress
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from skbus.core.skbuff import ETH_P_ARP, ETH_P_IP
from skbus.core.snmp import nonzero
from skbus.inet import proc
from skbus.inet.headers import ethernet
from skbus.packetdrill.backend import (
    CONGESTION_CONTROLS,
    Addresses,
    Pending,
    Reply,
    check_congestion_control,
)
from skbustest.congestion import TcpCongestionOps
from skbustest.host import take_parts
from skbustest.tasks import Future, Task
from skbustest.world import World

CALL_TIME: Final = 10_000
"""What a system call takes, ns. Where it takes nothing, round-trip times are equal that never are
in life, and what compares them (RACK) sees what no kernel would."""
PEER_MAC: Final = bytes.fromhex("02aabbccddee")
_LOOK: Final = 1_000_000
"""How often a pending call is looked at that does not say when it is done (epoll_wait), ns."""


class SimPending:
    """A system call of a simulated application."""

    def __init__(self, backend: "SimBackend") -> None:
        self._backend = backend
        self._reply: Reply | None = None
        self.finished = 0
        self.future: Future[None] = Future()

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
        self._reply = reply
        self.finished = self._backend.now()
        self.future.set(None)


class SimBackend:
    """One simulated stack (`backend.Backend`)."""

    offloads = False
    first_port = 40001

    def __init__(
        self,
        seed: int = 0,
        *,
        trace: bool = False,
        pcap: str | Path | None = None,
        sysctl: Mapping[str, object] | None = None,
        congestion_control: tuple[TcpCongestionOps, ...] = (),
    ) -> None:
        self.world = World(seed, trace=trace)
        self._pcap = pcap
        self._sysctl = dict(sysctl or {})
        self._congestion_control = congestion_control
        self._zero = self.world.now
        self._sent: deque[tuple[int, bytes]] = deque()
        self._woken: Future[None] | None = None
        self._calls: list[Task[None]] = []

    # ---- backend.Backend ---------------------------------------------------------------

    def start(self, addresses: Addresses, mtu: int) -> Addresses:
        world = self.world
        gateway = addresses.gateway
        if gateway == addresses.local:
            gateway = str(ipaddress.IPv4Address(gateway) + 1)
        self.host = world.host(
            "local",
            f"{addresses.local}/{addresses.prefixlen}",
            gateway=gateway,
            sysctl=self._sysctl,
            mtu=mtu,
            congestion_control=self._congestion_control,
        )
        self._local = ipaddress.IPv4Address(addresses.local).packed
        self._port = world.port("wire")
        world.link(self.host, self._port)
        self._port.receive = self._receive
        if self._pcap is not None:
            world.capture(self._pcap)
        self._mac = self.host.devices["eth0"].dev_addr
        world.settle()
        for name in CONGESTION_CONTROLS:
            value = str(self._sysctl.get(name, ""))
            check_congestion_control(name, value, self.host.net("tcp").cong)
        return addresses

    def begin(self) -> None:
        self.world.settle()
        self._zero = self.world.now

    def now(self) -> int:
        return self.world.now - self._zero

    def wait(self, until: int, pending: Pending | None = None, *, packet: bool = False) -> None:
        world = self.world
        end = self._zero + until
        world.settle()
        while world.now < end:
            if (packet and self._sent) or (pending is not None and pending.done):
                break
            woken: Future[None] = Future()
            wake = partial(woken.set, None)
            world.at(end, wake)
            if packet:
                self._woken = woken
            if isinstance(pending, SimPending):
                pending.future.when_done(wake)
            elif pending is not None:
                world.at(world.now + _LOOK, wake)
            world.run(woken, limit=max(end - world.now, 0) + 1)
        self._woken = None

    def inject(self, *packets: bytes) -> None:
        head = ethernet.build(self._mac, PEER_MAC, ETH_P_IP)
        for packet in packets:
            self._port.send(head + packet)
        self.world.settle()

    def settle(self) -> None:
        """An injected packet has been dealt with already."""

    def sent(self) -> tuple[int, bytes] | None:
        return self._sent.popleft() if self._sent else None

    def call(self, name: str, *args: object, data: bytes = b"") -> Pending:
        self.world.advance(CALL_TIME)
        pending = SimPending(self)
        self._calls.append(self.world.start(self._run(pending, name, args, data), name))
        self.world.settle()
        return pending

    def sysctl(self, name: str, value: str) -> None:
        check_congestion_control(name, value, self.host.net("tcp").cong)
        self.host.sysctl.set(name, value)

    def sysctls(self) -> Mapping[str, object]:
        return self.host.sysctl

    def mtu(self, mtu: int) -> None:
        self.host.set_mtu("eth0", mtu)
        self.world.settle()

    def tcp_metrics_flush(self) -> None:
        self.host.net("tcp").tcp_metrics.clear()

    def tso(self, on: bool) -> None:
        """There is none."""

    def counters(self) -> dict[str, int]:
        return {
            name: value
            for process in ("ip", "tcp", "udp")
            for name, value in nonzero(self.host.net(process).mib).items()
        }

    def proc(self, name: str) -> str | None:
        if name not in proc.NAMES:
            return None
        return proc.read(name, self._ask)

    def close(self) -> None:
        self.world.close()

    # ---- inside ------------------------------------------------------------------------

    def _ask(self, process: str, name: str) -> Any:
        """How `skbus.inet.proc` asks the cores."""
        if not process:
            return self.counters()
        # every layer's core has it (`skbus.bus.ctl` asks by it)
        core: Any = self.host.processes["nic.eth0" if process == "nic" else process].core
        return core.proc(name)

    async def _run(
        self, pending: SimPending, name: str, args: tuple[object, ...], data: bytes
    ) -> None:
        try:
            result, payload = await self.host.sys(name, *args, data=data)
        except OSError as e:
            text = e.strerror if e.args else None
            pending.returned(Reply(e.errno or 0, text))
            return
        if name == "recvmsg":
            parts, address, flags, control = result
            payload = take_parts(self.host.pool, parts, payload)
            result = (address, flags, control)
        pending.returned(Reply(0, result, payload))

    def _receive(self, frames: list[bytes]) -> None:
        for frame in frames:
            kind = int.from_bytes(frame[12:14], "big")
            if kind == ETH_P_ARP:
                self._answer_arp(frame)
            elif kind == ETH_P_IP:
                self._sent.append((self.now(), frame[14:]))
                if self._woken is not None:
                    self._woken.set(None)

    def _answer_arp(self, frame: bytes) -> None:
        asked = frame[38:42]
        if frame[20:22] != b"\0\1" or asked == self._local:
            return
        body = frame[14:20] + b"\0\2" + PEER_MAC + asked + frame[22:32]
        self._port.send(frame[6:12] + PEER_MAC + frame[12:14] + body)
