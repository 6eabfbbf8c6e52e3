# SPDX-License-Identifier: MIT
"""A host of a simulation: the five cores, a device for each interface, and sockets for its
applications."""

import errno
import ipaddress
import os
from collections.abc import Iterable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from skbus.core import uapi
from skbus.core.net import Core, TraceEvent
from skbus.core.pool import Allocator, Pool
from skbus.core.syscall import RecvmsgArgs, SendmsgArgs, decode_reply, encode_request
from skbus.core.sysctl import Sysctl
from skbus.inet.rps import RSS_KEY_LEN, tcp_processes
from skbus.inet.tcp_info import TcpInfo
from skbusd.ip.core import IpCore
from skbusd.ip.netns import DeviceConfig, IpConfig, IpNet, RouteConfig
from skbusd.nic.core import NicCore
from skbusd.nic.memory import MemoryDevice
from skbusd.nic.netdev import NicConfig, NicNet
from skbusd.socket.core import SocketCore
from skbusd.socket.files import Cred
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import TcpSock
from skbusd.tcp.core import TcpCore
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.tcp_cong import TcpCongestionOps, tcp_register_congestion_control
from skbusd.tcp.tcp_sockopt import tcp_get_info
from skbusd.tcp.tcp_states import STATE_CHANGES
from skbusd.udp.core import UdpCore
from skbusd.udp.netns import UdpNet
from skbustest.link import Port
from skbustest.process import Process
from skbustest.tasks import Future

if TYPE_CHECKING:
    from skbustest.world import World

_CLASSES: Final = ((2048, 4096), (16384, 64), (66560, 384))
_MAX_SEND: Final = 1 << 18
_IDENTITY: Final = b"world-app-client"  # 16 bytes, as long as a client id
AF_INET: Final = 2
SOCK_STREAM: Final = 1
SOCK_DGRAM: Final = 2
SOL_SOCKET: Final = 1

Address = tuple[str, int]


class Host:
    """A simulated host.

    addresses: "10.0.0.1/24", ... of its first interface. gateway: its default route. sysctl: by
    Linux's name. mtu: of its interfaces, bytes. interfaces: more of them, name -> addresses.
    congestion_control: controls besides the built-in ones. tcp_shards: number of tcp processes.
    """

    def __init__(
        self,
        world: "World",
        name: str,
        addresses: tuple[str, ...],
        *,
        gateway: str = "",
        sysctl: dict[str, object] | None = None,
        mtu: int = 1500,
        interfaces: dict[str, tuple[str, ...]] | None = None,
        routes: tuple[RouteConfig, ...] = (),
        congestion_control: tuple[TcpCongestionOps, ...] = (),
        tcp_shards: int = 1,
    ) -> None:
        self.world = world
        self.name = name
        self.mtu = mtu
        self.interfaces = {"eth0": addresses, **(interfaces or {})}
        self.gateway = gateway
        self.routes = routes
        self.congestion_control = congestion_control
        self.tcp_shards = tcp_shards
        self.tcp_processes = tcp_processes(tcp_shards)
        self.rss_key = b""
        self.sysctl = Sysctl(sysctl)
        self.pool = Pool()
        self.processes: dict[str, Process] = {}
        self.devices: dict[str, MemoryDevice] = {}
        self.ports: dict[str, Port] = {}
        self.events: list[TraceEvent] = []
        self._regions: dict[str, Allocator] = {}
        self._epochs: dict[str, int] = {}
        self._calls: dict[int, Future[tuple[int, Any, bytes]]] = {}
        self._next_call = 0

    # ---- processes ---------------------------------------------------------------------

    def boot(self) -> None:
        """Start all processes."""
        if self.tcp_shards > 1:
            self.rss_key = Random(f"{self.world.seed} {self.name} rss").randbytes(RSS_KEY_LEN)
        for i, dev in enumerate(self.interfaces, 1):
            mac = bytes((2, 0, 0)) + self.world.rand.randbytes(2) + bytes((i,))
            port = self.ports[dev] = Port(self.world, f"{self.name}.{dev}")
            device = self.devices[dev] = MemoryDevice(
                dev, mac, mtu=self.mtu, ifindex=i + 1, transmit=port.send
            )
            port.receive = partial(self._receive, dev, device)
        nics = tuple(f"nic.{dev}" for dev in self.interfaces)
        for process in (*nics, "ip", *self.tcp_processes, "udp", "socket"):
            self.start(process)

    def start(self, process: str) -> Process:
        """Start a process, or start it anew: its core is forgotten, as if it had been killed."""
        old = self.processes.get(process)
        self._epochs[process] = self._epochs.get(process, 0) + 1
        core, neighbours = self._core(process)
        core.net.tracing = self.world.trace
        core.net.now = self.world.now
        started = Process(self.world, self, core, neighbours)
        if isinstance(core, NicCore):
            started.poll, started.after = partial(core.poll_rx, 64), core.flush_tx
        if isinstance(core, SocketCore):
            core.client_up(_IDENTITY, Cred(0, (), True, 0, True))
            started.after = self._replies
        if old is not None:
            started.inbox, started.handed = old.inbox, old.handed
        self.processes[process] = started
        started.dispatcher.start()
        started.flush()
        started.wake()
        return started

    def net(self, process: str) -> Any:
        """The Net of a process: counters, drops, state."""
        return self.processes[process].net

    def set_mtu(self, dev: str, mtu: int) -> None:
        """Set an interface's MTU while the stack runs, as `ip link set` does."""
        process = self.processes[f"nic.{dev}"]
        self.devices[dev].set_link(mtu=mtu)
        assert isinstance(process.core, NicCore)
        process.core.link_changed()
        process.wake()

    def port(self) -> Port:
        """The host's first port without a link."""
        for port in self.ports.values():
            if port.link is None:
                return port
        raise self.world.error(f"host {self.name} has no free interface")

    def traced(self, events: Iterable[TraceEvent]) -> None:
        """Keep the trace events of a core."""
        self.events += events

    def _receive(self, dev: str, device: MemoryDevice, frames: list[bytes]) -> None:
        device.deliver(frames)
        self.processes[f"nic.{dev}"].wake()

    def _core(self, process: str) -> tuple[Core, tuple[str, ...]]:
        arguments: dict[str, Any] = {
            "name": process,
            "rand": Random(f"{self.world.seed} {self.name} {process} {self._epochs[process]}"),
            "pool": self.pool,
            "sysctl": self.sysctl,
            "epoch": self._epochs[process],
        }
        nics = tuple(f"nic.{dev}" for dev in self.interfaces)
        layer, _, dev = process.partition(".")
        if layer == "nic":
            net = NicNet(
                **arguments,
                alloc=self._region(process),
                device=self.devices[dev],
                config=NicConfig(dev),
            )
            return NicCore(net), ("ip",)
        if layer == "ip":
            devices = tuple(
                DeviceConfig(dev, tuple(addresses), self.gateway if i == 0 else "")
                for i, (dev, addresses) in enumerate(self.interfaces.items())
            )
            config = IpConfig(
                devices=devices,
                routes=self.routes,
                tcp_shards=self.tcp_shards,
                rss_key=self.rss_key,
            )
            neighbours = (*nics, *self.tcp_processes, "udp", "socket")
            return IpCore(IpNet(**arguments, config=config)), neighbours
        if layer == "tcp":
            tcp = TcpCore(TcpNet(**arguments, shards=self.tcp_shards, rss_key=self.rss_key))
            tcp.net.state_changes = STATE_CHANGES
            for ca in self.congestion_control:
                if err := tcp_register_congestion_control(tcp.net, ca):
                    raise self.world.error(f"{self.name}: {ca.name!r}: {os.strerror(err)}")
            return tcp, ("ip", "socket")
        if layer == "udp":
            return UdpCore(UdpNet(**arguments)), ("ip", "socket")
        arguments["alloc"] = self._region(process)
        sockets = SocketNet(**arguments, tcp_shards=self.tcp_shards)
        return SocketCore(sockets), ("ip", *self.tcp_processes, "udp")

    def _region(self, process: str) -> Allocator:
        region = self._regions.get(process)
        if region is None:
            number = len(self._regions) + 1
            size = 65536 + sum(s * n for s, n in _CLASSES)
            region = Allocator.format(number, bytearray(size), _CLASSES)
            self._regions[process] = self.pool.regions[number] = region
        return region

    # ---- system calls ------------------------------------------------------------------

    async def sys(self, call: str, *args: object, data: bytes = b"") -> tuple[Any, bytes]:
        """One system call of an application: (result, data). OSError with the call's errno."""
        self._next_call += 1
        req = self._next_call
        future: Future[tuple[int, Any, bytes]] = Future()
        self._calls[req] = future
        process = self.processes["socket"]
        core = process.core
        assert isinstance(core, SocketCore)
        core.net.now = self.world.now
        core.request(_IDENTITY, encode_request(req, call, *args), data)
        process.wake()
        err, result, reply = await future
        if err:
            raise OSError(err, result if isinstance(result, str) else os.strerror(err))
        return result, reply

    async def socket(self, type: int = SOCK_STREAM, protocol: int = 0) -> "SimSocket":
        """A new IPv4 socket."""
        fd, _ = await self.sys("socket", AF_INET, type, protocol)
        return SimSocket(self, fd)

    async def listen(self, port: int, backlog: int = 128) -> "SimSocket":
        """A listening TCP socket on all addresses."""
        sock = await self.socket()
        await sock.setsockopt(SOL_SOCKET, uapi.SO_REUSEADDR, (1).to_bytes(4, "little"))
        await sock.bind(("0.0.0.0", port))
        await sock.listen(backlog)
        return sock

    async def connect(self, host: str, port: int) -> "SimSocket":
        """A connected TCP socket."""
        sock = await self.socket()
        await sock.connect((host, port))
        return sock

    def _replies(self) -> None:
        net = self.net("socket")
        replies, net.replies = net.replies, []
        for _, meta, data in replies:
            req, err, result = decode_reply(meta)
            future = self._calls.pop(req, None)
            if future is not None:
                future.set((err, result, data))


def _pack(address: Address) -> tuple[int, int, bytes]:
    return AF_INET, address[1], ipaddress.ip_address(address[0]).packed


def _unpack(address: Any) -> Address:
    return str(ipaddress.ip_address(address[2])), address[1]


class SimSocket:
    """A socket of a simulated application; the methods are those of `socket.socket`, awaited."""

    def __init__(self, host: Host, fd: int) -> None:
        self.host = host
        self.fd = fd

    async def bind(self, address: Address) -> None:
        await self.host.sys("bind", self.fd, _pack(address))

    async def listen(self, backlog: int = 128) -> None:
        await self.host.sys("listen", self.fd, backlog)

    async def accept(self, timeout: int = -1) -> tuple["SimSocket", Address]:
        (fd, address), _ = await self.host.sys("accept4", self.fd, 0, timeout)
        return SimSocket(self.host, fd), _unpack(address)

    async def connect(self, address: Address, timeout: int = -1) -> None:
        await self.host.sys("connect", self.fd, _pack(address), timeout)

    async def send(self, data: bytes, flags: int = 0, timeout: int = -1) -> int:
        sent, _ = await self.host.sys(
            "sendmsg", *SendmsgArgs(self.fd, flags=flags, timeout=timeout), data=data[:_MAX_SEND]
        )
        return int(sent)

    async def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self.send(bytes(view[:_MAX_SEND])) :]

    async def sendto(self, data: bytes, address: Address) -> int:
        sent, _ = await self.host.sys(
            "sendmsg", *SendmsgArgs(self.fd, addr=_pack(address)), data=data
        )
        return int(sent)

    async def sendmsg(
        self,
        data: bytes,
        control: Iterable[tuple[int, int, bytes]] = (),
        flags: int = 0,
        address: Address | None = None,
    ) -> int:
        to = None if address is None else _pack(address)
        sent, _ = await self.host.sys(
            "sendmsg",
            *SendmsgArgs(self.fd, flags=flags, addr=to, control=tuple(control)),
            data=data,
        )
        return int(sent)

    async def recv(self, size: int, flags: int = 0, timeout: int = -1) -> bytes:
        return (await self.recvfrom(size, flags, timeout))[0]

    async def recvfrom(
        self, size: int, flags: int = 0, timeout: int = -1
    ) -> tuple[bytes, Address | None]:
        data, _, _, address = await self.recvmsg(size, 0, flags, timeout)
        return data, address

    async def recvmsg(
        self, size: int, room: int = 0, flags: int = 0, timeout: int = -1
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Address | None]:
        """(bytes, control messages of `room` bytes at most, flags, sender's address)"""
        (parts, address, msg_flags, control), data = await self.host.sys(
            "recvmsg", *RecvmsgArgs(self.fd, size, controllen=room, flags=flags, timeout=timeout)
        )
        payload = take_parts(self.host.pool, parts, data)
        sender = None if address is None else _unpack(address)
        return payload, list(control), msg_flags, sender

    async def ioctl(self, request: int) -> int:
        return int((await self.host.sys("ioctl", self.fd, request))[0])

    async def recv_exactly(self, size: int) -> bytes:
        """`size` bytes, or fewer where the peer ends earlier."""
        out = []
        while size:
            data = await self.recv(min(size, 1 << 20))
            if not data:
                break
            out.append(data)
            size -= len(data)
        return b"".join(out)

    async def recv_all(self) -> bytes:
        """All bytes until the peer ends."""
        return await self.recv_exactly(1 << 40)

    async def shutdown(self, how: int) -> None:
        await self.host.sys("shutdown", self.fd, how)

    async def close(self) -> None:
        await self.host.sys("close", self.fd)

    async def setsockopt(self, level: int, name: int, value: bytes) -> None:
        await self.host.sys("setsockopt", self.fd, level, name, value)

    async def getsockopt(self, level: int, name: int, size: int = 4) -> bytes:
        result, _ = await self.host.sys("getsockopt", self.fd, level, name, size)
        return bytes(result)

    def info(self) -> TcpInfo:
        """TCP's knowledge of the connection at this moment, as `ss -ti` would show it.

        This makes no system call and takes no time, so it changes nothing. OSError: EBADF after
        close, EOPNOTSUPP where this is no TCP socket, ENOTCONN where tcp has no such connection
        (any more).
        """
        sock = self.host.net("socket").clients[_IDENTITY].fdt.get(self.fd)
        if sock is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sk = sock.sk
        if not isinstance(sk, TcpSock):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        net = self.host.net(sk.sk_prot.process)
        tp = net.socks.get(sk.number)
        if tp is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        net.now = self.host.world.now
        return TcpInfo.unpack(tcp_get_info(net, tp))

    async def getsockname(self) -> Address:
        return _unpack((await self.host.sys("getsockname", self.fd))[0])

    async def getpeername(self) -> Address:
        return _unpack((await self.host.sys("getpeername", self.fd))[0])


__all__ = ["Address", "Host", "SimSocket"]


def take_parts(pool: Pool, parts: Iterable[Any], data: bytes) -> bytes:
    """The payload of a reply to `recvmsg` (`skbus.core.syscall`); its slots are given back."""
    out = []
    at = 0
    for part in parts:
        if isinstance(part, int):
            out.append(data[at : at + part])
            at += part
        else:
            out.append(bytes(pool.view(part)))
            pool.free(part)
    return b"".join(out)
