# SPDX-License-Identifier: MIT
"""How every layer starts: the kernel's steps in the kernel's order, each where it belongs; and a
step that fails is named, and what came before it is taken back."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from skbus.core.abi import (
    InetAddProtocol,
    InetDelProtocol,
    PacketType,
    ProtoUnregister,
    RegisterNetdevice,
)
from skbus.core.initcall import InitError, InitStep, do_initcalls
from skbus.core.interfaces import Netif, NetifReceive, SkCallbacks, TcpProtocol
from skbus.core.net import Net
from skbus.core.pool import Pool
from skbus.core.syscall import SysCallError
from skbusd.ip import af_inet as ip_inet
from skbusd.ip.core import IpCore
from skbusd.ip.netns import IpConfig, IpNet, NeighbourConfig
from skbusd.nic import dev as nic_dev
from skbusd.nic.core import NicCore
from skbusd.nic.memory import MemoryDevice
from skbusd.nic.netdev import NicNet
from skbusd.socket import af_inet, proto, protosw, sock_init, tcp_sock, uapi
from skbusd.socket import socket as sock_socket
from skbusd.socket.core import SocketCore
from skbusd.socket.netns import SocketNet
from skbusd.tcp import af_inet as tcp_inet
from skbusd.tcp.core import TcpCore
from skbusd.tcp.netns import TcpNet
from skbusd.udp import af_inet as udp_inet
from skbusd.udp.core import UdpCore
from skbusd.udp.netns import UdpNet, UdpTable
from skbustest.nicrig import NicRig


def _nic() -> NicNet:
    rig = NicRig()
    return NicNet(
        rand=Random(1), pool=rig.net.pool, alloc=rig.alloc, device=MemoryDevice(dev_addr=bytes(6))
    )


LAYERS: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], Any], tuple[InitStep, ...]]]] = {
    "sock_init": (
        lambda: SocketNet(rand=Random(1), pool=Pool()), SocketCore, sock_init.SOCK_INIT,
    ),
    "socket": (lambda: SocketNet(rand=Random(1), pool=Pool()), SocketCore, af_inet.INET_INIT),
    "tcp": (lambda: TcpNet(rand=Random(1), pool=Pool()), TcpCore, tcp_inet.INET_INIT),
    "udp": (lambda: UdpNet(rand=Random(1), pool=Pool()), UdpCore, udp_inet.INET_INIT),
    "ip": (lambda: IpNet(rand=Random(1), pool=Pool()), IpCore, ip_inet.INET_INIT),
    "nic": (_nic, NicCore, nic_dev.NET_DEV_INIT),
}  # fmt: skip

ORDER: Final = {
    "sock_init": "sk_init skb_init init_inodecache kern_mount",
    "socket": "proto_register(TCP) proto_register(UDP) proto_register(RAW) proto_register(PING) "
    "sock_register(inet_family_ops) inet_register_protosw(TCP) inet_register_protosw(UDP) "
    "inet_register_protosw(PING) inet_register_protosw(RAW) udplite4_register",
    "tcp": "inet_add_protocol(TCP) tcp_v4_init tcp_init",
    "udp": "inet_add_protocol(UDP) udp_init udplite4_register",
    "ip": "inet_add_protocol(ICMP) inet_add_protocol(IGMP) arp_init ip_init ping_init icmp_init "
    "ipv4_proc_init ipfrag_init dev_add_pack(ip_packet_type)",
    "nic": "net_dev_init register_netdevice",
}

STEPS: Final = [(layer, i) for layer, (_, _, steps) in LAYERS.items() for i in range(len(steps))]

_NOT_STATE: Final = {
    "rand", "mib", "outbox", "log_events", "trace_events", "timers", "pool", "alloc", "region",
    "device", "scratch", "sysctl", "state",
}  # fmt: skip
_REVISIONS: Final = {"rt_genid", "numbers", "reachable_time_set", "cong"}
"""What only ever grows, or does no harm: congestion controls stay registered."""


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as something that can be compared after it has changed."""
    if isinstance(value, dict):
        return {k: _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, depth + 1) for v in value]
    if isinstance(value, UdpTable):
        return (value.ports, value.hash2, value.hash4)
    if hasattr(value, "__slots__") and depth < 3 and not callable(value):
        return {n: _plain(getattr(value, n), depth + 1) for n in value.__slots__}
    return value


def state(net: Net) -> dict[str, Any]:
    """Everything that a start may change."""
    return {
        name: _plain(value)
        for name, value in vars(net).items()
        if name not in _NOT_STATE | _REVISIONS
    }


def fail(err: int) -> Callable[[Any], None]:
    def init(net: Any) -> None:
        raise SysCallError(err, "injected")

    return init


@pytest.mark.parametrize("layer", LAYERS)
def test_the_order_is_the_kernels(layer: str) -> None:
    make, core, steps = LAYERS[layer]
    assert " ".join(step.name for step in steps) == ORDER[layer]
    net = make()
    net.tracing = True
    core(net).start()
    names = [step.name for step in steps]
    function = {"nic": "net_dev_init", "sock_init": "sock_init"}.get(layer, "inet_init")
    traced = [
        event.function for event in net.trace_events if event.details.get("initcall") == function
    ]
    assert traced == names  # a line each at debug
    said = [d for level, name, d, _ in net.log_events if (level, name) == ("info", function)]
    assert said == [{"steps": names}]  # and one for all at info


@pytest.mark.interpreted
@pytest.mark.parametrize(("layer", "at"), STEPS)
def test_a_step_that_fails_is_unwound(layer: str, at: int) -> None:
    make, _, steps = LAYERS[layer]
    net = make()
    before = state(net)
    name = steps[at].name
    broken = (*steps[:at], steps[at]._replace(init=fail(errno.ENOMEM)), *steps[at + 1 :])
    undone: list[str] = []

    def noted(step: InitStep) -> InitStep:
        def exit(net: Any) -> None:
            undone.append(step.name)
            step.exit(net)

        return step._replace(exit=exit)

    with pytest.raises(InitError) as info:
        do_initcalls(net, "inet_init", [noted(step) for step in broken])
    assert (info.value.step, info.value.errno) == (name, errno.ENOMEM)
    earlier = [step.name for step in reversed(steps[:at])]
    assert undone == earlier
    assert state(net) == before
    assert net.timers.next_expiry() is None
    ((_, _, details, _),) = [e for e in net.log_events if e[0] == "warning"]
    assert details["failed"] == name
    assert details["err"] == "ENOMEM"
    assert details["unwound"] == earlier
    # and all of it can be done again
    do_initcalls(net, "inet_init", steps)


@pytest.mark.parametrize("layer", ["tcp", "udp", "ip"])
def test_other_processes_hear_of_the_unwinding(layer: str) -> None:
    """What was registered in another process is taken back there."""
    make, _, steps = LAYERS[layer]
    net = make()
    if layer == "ip":
        do_initcalls(net, "inet_init", steps)
        item = RegisterNetdevice("nic.eth0", "eth0", 2, bytes(6), 1500, 0, 65536, True)
        IpCore(net).entries[NetifReceive.register_netdevice](net, item)
        told = net.outbox.pop("nic.eth0")
        assert [i.func for e, i in told if e is Netif.dev_add_pack] == ["arp_rcv", "ip_rcv"]
        for step in reversed(steps):
            if step.name in ("arp_init", "dev_add_pack(ip_packet_type)"):
                step.exit(net)
        told = net.outbox.pop("nic.eth0")
        assert [i.func for e, i in told if e is Netif.dev_remove_pack] == ["ip_rcv", "arp_rcv"]
        return
    last = InitStep("the last", fail(errno.ENOMEM), lambda net: None)
    with pytest.raises(InitError):
        do_initcalls(net, "inet_init", (*steps, last))
    items = [item for _, item in net.outbox["ip"]]
    added = [i.protocol for i in items if isinstance(i, InetAddProtocol)]
    removed = [i.protocol for i in items if isinstance(i, InetDelProtocol)]
    assert added == list(reversed(removed)) == ([6] if layer == "tcp" else [17, 136])


@pytest.mark.interpreted
def test_inet_init_that_fails_unwinds_sock_init(monkeypatch: pytest.MonkeyPatch) -> None:
    net = SocketNet(rand=Random(1), pool=Pool())
    before = state(net)
    broken = (*af_inet.INET_INIT, InitStep("the last", fail(errno.ENOBUFS), lambda net: None))
    monkeypatch.setattr(af_inet, "INET_INIT", broken)
    with pytest.raises(InitError, match=r"the last: ENOBUFS: injected"):
        SocketCore(net).start()
    assert state(net) == before


def test_an_error_that_is_no_errno_is_told_too() -> None:
    def broken(net: Any) -> None:
        raise ZeroDivisionError("injected")

    net = Net("odd", rand=Random(1), pool=Pool())
    with pytest.raises(InitError, match="odd: failed: injected"):
        do_initcalls(net, "inet_init", [InitStep("odd", broken, broken)])
    ((_, _, details, _),) = net.log_events
    assert details["err"] == "ZeroDivisionError"


def test_a_process_that_cannot_start_says_which_step_failed(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[[devices]]\nname = "eth9"\naddr = "224.0.0.1/24"\n')
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "skbusd", "ip", "--config", str(config), "--log-format", "json"],
        env={**os.environ, "SKBUS_DIR": str(run)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode != 0
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["event"] == "inet_init"]
    assert line["level"] == "warning"
    assert line["failed"] == "ip_init"
    assert "224.0.0.1/24" in line["text"]
    assert line["unwound"] == ["arp_init", "inet_add_protocol(IGMP)", "inet_add_protocol(ICMP)"]


# ---- the kernel's errors -------------------------------------------------------------------


@pytest.fixture
def net() -> SocketNet:
    net = SocketNet(rand=Random(1), pool=Pool())
    SocketCore(net).start()
    net.log_events.clear()
    return net


def _errno(function: Callable[..., None], *args: Any) -> int:
    with pytest.raises(SysCallError) as info:
        function(*args)
    return info.value.errno


def test_families(net: SocketNet) -> None:
    def create(*args: Any) -> None:
        raise SysCallError(errno.EPROTONOSUPPORT)

    register = sock_socket.sock_register
    family = sock_socket.NetProtoFamily
    assert _errno(register, net, af_inet.INET_FAMILY_OPS) == errno.EEXIST
    for number in (uapi.NPROTO, uapi.NPROTO + 1, 1000, -1):
        assert _errno(register, net, family(number, create)) == errno.ENOBUFS
    register(net, family(uapi.NPROTO - 1, create))
    assert _errno(register, net, family(uapi.NPROTO - 1, create)) == errno.EEXIST
    sock_socket.sock_unregister(net, uapi.NPROTO - 1)
    register(net, family(uapi.NPROTO - 1, create))
    with pytest.raises(ValueError, match="46"):
        sock_socket.sock_unregister(net, uapi.NPROTO)


def test_protocols(net: SocketNet) -> None:
    assert _errno(proto.proto_register, net, tcp_sock.TCP_PROT) == errno.EEXIST
    from dataclasses import replace

    for i in range(proto.PROTO_INUSE_NR - len(net.proto_list)):
        proto.proto_register(net, replace(tcp_sock.TCP_PROT, name=f"X{i}"))
    assert (
        _errno(proto.proto_register, net, replace(tcp_sock.TCP_PROT, name="one too many"))
        == errno.ENOSPC
    )
    proto.proto_unregister(net, replace(tcp_sock.TCP_PROT, name="X0"))  # another of that name
    assert "X0" in net.proto_list
    proto.proto_unregister(net, net.proto_list["X0"])
    assert "X0" not in net.proto_list


def test_the_switch(net: SocketNet) -> None:
    def entry(type: int, protocol: int, flags: int) -> protosw.InetProtosw:
        return protosw.InetProtosw(
            type, protocol, tcp_sock.TCP_PROT, af_inet.INET_STREAM_OPS, flags
        )

    register, unregister = protosw.inet_register_protosw, protosw.inet_unregister_protosw
    for type in (-1, uapi.SOCK_MAX):
        assert _errno(register, net, entry(type, 6, 0)) == errno.EINVAL
    for p in af_inet.INETSW_ARRAY:
        if p.flags & protosw.INET_PROTOSW_PERMANENT:
            assert _errno(register, net, entry(p.type, p.protocol, 0)) == errno.EPERM
            assert _errno(unregister, net, p) == errno.EPERM
    flags = {p.prot.name: p.flags for p in (*af_inet.INETSW_ARRAY, af_inet.UDPLITE4_PROTOSW)}
    assert flags == {"TCP": 2 | 4, "UDP": 2, "PING": 1, "RAW": 1, "UDP-Lite": 2}
    # One that is not permanent goes before those that are not, and behind those that are.
    mine = entry(uapi.SOCK_DGRAM, 1, 0)
    register(net, mine)
    assert protosw.inet_lookup_protosw(net, uapi.SOCK_DGRAM, 1) == (mine, 1)
    assert protosw.inet_lookup_protosw(net, uapi.SOCK_DGRAM, 0)[1] == uapi.IPPROTO_UDP
    unregister(net, mine)
    assert protosw.inet_lookup_protosw(net, uapi.SOCK_DGRAM, 1)[0] is af_inet.INETSW_ARRAY[2]


def test_a_permanent_neighbour_that_makes_no_sense() -> None:
    config = IpConfig(neighbours=(NeighbourConfig("10.0.0.9", "02:00:00:00:00", "eth0"),))
    net = IpNet(rand=Random(1), pool=Pool(), config=config)
    with pytest.raises(InitError, match="arp_init: EINVAL"):
        IpCore(net).start()
    assert not net.inet_local


def test_a_permanent_neighbour_is_there_when_its_device_is_up() -> None:
    from skbusd.ip.netns import DeviceConfig

    config = IpConfig(
        (DeviceConfig("eth0", ("10.0.0.2/24",)),),
        neighbours=(NeighbourConfig("10.0.0.9", "02:00:00:00:00:09", "eth0"),),
    )
    net = IpNet(rand=Random(1), pool=Pool(), config=config)
    core = IpCore(net)
    core.start()
    assert not core.neighbours()
    item = RegisterNetdevice("nic.eth0", "eth0", 2, bytes(5) + b"\2", 1500, 0, 65536, True)
    core.entries[NetifReceive.register_netdevice](net, item)
    (neigh,) = core.neighbours()
    assert (neigh["lladdr"], neigh["state"]) == (b"\x02\0\0\0\0\x09", "PERMANENT")


# ---- packet types --------------------------------------------------------------------------


def test_frames_go_to_whom_they_are_registered_for() -> None:
    rig = NicRig()
    net = rig.net
    add, remove = rig.core.entries[Netif.dev_add_pack], rig.core.entries[Netif.dev_remove_pack]
    frame = b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + bytes(46)
    assert rig.receive(frame) == []
    assert net.drops == {"SKB_DROP_REASON_UNHANDLED_PROTO": 1}
    for bad in (
        PacketType(0x88B5, "mine", "no_such_entry"),
        PacketType(0x88B5, "mine", TcpProtocol.tcp_v4_rcv.name),  # its cb is none that nic makes
        PacketType(0x05FF, "mine", NetifReceive.ip_rcv.name),
        PacketType(0x0800, "mine", NetifReceive.ip_rcv.name),
    ):
        add(net, bad)
    assert [details["error"] for _, _, details, _ in net.log_events] == [
        "no such entry: no_such_entry",
        "no such entry: tcp_v4_rcv",
        "no Ethernet type",
        "taken by ip",
    ]
    mine = PacketType(0x88B5, "mine", NetifReceive.ip_rcv.name)
    add(net, mine)
    assert rig.receive(frame) == []
    ((entry, skb),) = net.outbox.pop("mine")
    assert (entry, skb.data, skb.protocol) == (NetifReceive.ip_rcv, 14, 0x88B5)
    remove(net, mine)
    remove(net, PacketType(0x0800, "mine", NetifReceive.ip_rcv.name))
    assert sorted(net.ptype_base) == [0x0800, 0x0806]
    rig.receive(frame)
    assert net.drops == {"SKB_DROP_REASON_UNHANDLED_PROTO": 2}


# ---- a transport that goes -----------------------------------------------------------------


def test_a_transport_that_unregisters_is_no_neighbour_any_more(net: SocketNet) -> None:
    core = SocketCore(net)
    core.peer_up("tcp")
    core.peer_up("mine")
    assert core.barrier_edges() == ([], ["mine", "tcp"])
    core.entries[SkCallbacks.proto_unregister](net, ProtoUnregister("mine"))
    core.entries[SkCallbacks.proto_unregister](net, ProtoUnregister("mine"))
    assert core.barrier_edges() == ([], ["tcp"])
