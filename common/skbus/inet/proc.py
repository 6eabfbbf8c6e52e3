# SPDX-License-Identifier: MIT
"""/proc/net of a stack: the files' text, in Linux's format, from the processes' answers.

Each process answers the control request `proc` with plain values (`proc_net` in the `proc` module
of each layer). Functions named as Linux's put them together here, for `skbus proc`. `read` takes
any way of asking, so a simulation's cores can also be asked.

`DIFFERENT` has the known differences from Linux, besides files and columns of missing parts
(MPTcpExt, IPv6, other families).
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

TCP_ESTABLISHED: Final = 1
TCP_CLOSE: Final = 7
TCP_LISTEN: Final = 10
USER_HZ_NS: Final = 10_000_000
"""ns in one unit of the times that these files show (USER_HZ is 100)."""

Address = tuple[bytes, int]
"""(address, port)"""

Ask = Callable[[str, str], Any]
"""(process, file) -> its part. "nic" answers for all devices, in one list, and "tcp" for all its
shards (`merge_tcp`). ("", "counters") is the sum of all processes' counters."""

DIFFERENT: Final = {
    "inode": "the number of the socket in our stack; there is no inode",
    "pointer": "the same number in hex; there is no kernel address to show",
    "ref": "always 1 (2 for a connection whose timer runs is not told apart)",
    "protocols": "size: of the Python object without what hangs on it; maxhdr: no headroom is "
    "reserved; slab, module: there are none",
    "protocols memory": "of a plug-in's protocol: the bytes in its queues, in pages of 4096; TCP "
    "and UDP tell what tcp_mem and udp_mem limit, as in Linux",
    "route": "RefCnt, Use, Window and IRTT are 0, as in Linux; MTU too (no advmss of a route)",
    "IcmpMsg": "types that have no counter of their own in Icmp are not told",
    "dev": "fifo, frame, compressed, multicast and colls are 0: our devices do not count them",
}
"""File or column -> how it differs from Linux, and why."""


# ---- answers of the processes -------------------------------------------------------------


class TcpLine(NamedTuple):
    """tcp's part of one line. when: clock ticks until the timer. tail: rto, ato, quick and
    pingpong, cwnd, ssthresh; () for SYN_RECV and TIME_WAIT."""

    sk: int
    state: int
    local: Address
    rem: Address
    tx_queue: int
    rx_queue: int
    timer: int
    when: int
    retrnsmt: int
    probes_out: int
    tail: tuple[int, ...]


class DatagramLine(NamedTuple):
    """A transport's part of a line of udp, udplite, raw or icmp."""

    sk: int
    state: int
    local: Address
    rem: Address
    rx_queue: int
    drops: int


class Owner(NamedTuple):
    """The socket layer's part of both: user, inode, bytes not sent yet, drops."""

    uid: int
    inode: int
    wmem: int
    drops: int = 0


class IgmpGroup(NamedTuple):
    """One group of a device. timer: clock ticks."""

    group: bytes
    users: int
    running: bool
    timer: int
    reporter: bool


class IgmpDevice(NamedTuple):
    """A device with its groups."""

    ifindex: int
    name: str
    version: int
    groups: tuple[IgmpGroup, ...]


class ArpLine(NamedTuple):
    """One neighbour. flags: ATF_COM 2, ATF_PERM 4."""

    addr: bytes
    flags: int
    ha: bytes
    dev: str


class RouteLine(NamedTuple):
    """One route of the main table. flags: RTF_..."""

    dev: str
    dst: bytes
    gateway: bytes
    flags: int
    metric: int
    prefixlen: int


class DevLine(NamedTuple):
    """One device. stats: the sixteen columns."""

    ifindex: int
    name: str
    stats: tuple[int, ...]


class ProtoLine(NamedTuple):
    """One protocol. memory: in pages, -1 where not counted; tcp and udp tell their own. methods: y
    or n, for each of the file's last columns."""

    name: str
    size: int
    sockets: int
    memory: int
    methods: str


def dev_stats(mib: Mapping[str, int]) -> tuple[int, ...]:
    """The columns of a device from its process's counters."""
    return (
        mib["DevRxBytes"], mib["DevRxPackets"], mib["DevRxErrors"],
        mib["DevRxDropped"] + mib["DevRxMissedErrors"], 0, 0, 0, 0,
        mib["DevTxBytes"], mib["DevTxPackets"], mib["DevTxErrors"], mib["DevTxDropped"],
        0, 0, mib["DevTxCarrierErrors"], 0,
    )  # fmt: skip


# ---- sockets ------------------------------------------------------------------------------

_NOBODY: Final = Owner(0, 0, 0)
_SL: Final = (
    "sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
)


def _hex(addr: bytes) -> str:
    """An address as Linux prints one: the word as it lies in memory, as a number of the host."""
    return f"{int.from_bytes(addr[:4], sys.byteorder):08X}"


def _ends(local: Address, rem: Address) -> str:
    return f"{_hex(local[0])}:{local[1]:04X} {_hex(rem[0])}:{rem[1]:04X}"


def tcp4_seq_show(lines: list[Any], owners: Mapping[int, Any]) -> Iterator[str]:
    """/proc/net/tcp (`tcp_ipv4.c`): each line is as wide as 149 characters."""
    yield f"{'  ' + _SL:<149}"
    for i, told in enumerate(lines):
        line = TcpLine(*told)
        owner = Owner(*owners.get(line.sk, _NOBODY))
        text = (
            f"{i:4d}: {_ends(line.local, line.rem)} {line.state:02X}"
            f" {line.tx_queue:08X}:{line.rx_queue:08X} {line.timer:02X}:{line.when:08X}"
            f" {line.retrnsmt:08X} {owner.uid:5d} {line.probes_out:8d} {owner.inode:d}"
            f" {1 if line.tail else 0 if line.timer == 1 else 3:d} {line.sk:016x}"
        )
        yield f"{' '.join([text, *map(str, line.tail)]):<149}"


def _datagram(i: int, width: int, told: Any, owners: Mapping[int, Any]) -> str:
    """`udp4_format_sock`, and the same of raw and ping sockets."""
    line = DatagramLine(*told)
    owner = Owner(*owners.get(line.sk, _NOBODY))
    return (
        f"{i:{width}d}: {_ends(line.local, line.rem)} {line.state:02X}"
        f" {owner.wmem:08X}:{line.rx_queue:08X} 00:00000000 00000000"
        f" {owner.uid:5d} {0:8d} {owner.inode:d} 1 {line.sk:016x} {line.drops + owner.drops:d}"
    )


def udp4_seq_show(lines: list[Any], owners: Mapping[int, Any]) -> Iterator[str]:
    """/proc/net/udp and /proc/net/udplite (`udp.c`): 127 characters; `sl` is the hash bucket."""
    yield f"{'   ' + _SL + ' ref pointer drops':<127}"
    for told in lines:
        yield f"{_datagram(DatagramLine(*told).local[1], 5, told, owners):<127}"


def raw_seq_show(lines: list[Any], owners: Mapping[int, Any]) -> Iterator[str]:
    """/proc/net/raw (`raw.c`); `sl` is the protocol."""
    yield f"  {_SL} ref pointer drops"
    for told in lines:
        yield _datagram(DatagramLine(*told).local[1] & 255, 4, told, owners)


def ping_v4_seq_show(lines: list[Any], owners: Mapping[int, Any]) -> Iterator[str]:
    """/proc/net/icmp (`ping.c`)"""
    yield f"{'  ' + _SL + ' ref pointer drops':<127}"
    for i, told in enumerate(lines):
        yield f"{_datagram(i, 5, told, owners):<127}"


# ---- addresses, groups, routes, devices ----------------------------------------------------


def igmp_mc_seq_show(devices: list[Any]) -> Iterator[str]:
    """/proc/net/igmp (`igmp.c`)"""
    yield "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter"
    for told in devices:
        dev = IgmpDevice(*told)
        yield f"{dev.ifindex}\t{dev.name:<10}: {len(dev.groups):5d} {f'V{dev.version}':>7}"
        for each in dev.groups:
            im = IgmpGroup(*each)
            timer = f"{im.running:d}:{im.timer:08X}"
            yield f"\t\t\t\t{_hex(im.group)} {im.users:5d} {timer}\t\t{im.reporter:d}"


def arp_seq_show(lines: list[Any]) -> Iterator[str]:
    """/proc/net/arp (`arp.c`)"""
    yield "IP address       HW type     Flags       HW address            Mask     Device"
    for told in lines:
        n = ArpLine(*told)
        addr = ".".join(map(str, n.addr))
        yield f"{addr:<16} 0x{1:<10x}0x{n.flags:<10x}{n.ha.hex(':'):<17}     *        {n.dev}"


def fib_route_seq_show(lines: list[Any]) -> Iterator[str]:
    """/proc/net/route (`fib_trie.c`)"""
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    yield f"{head:<127}"
    for told in lines:
        rt = RouteLine(*told)
        mask = (0xFFFFFFFF << (32 - rt.prefixlen) & 0xFFFFFFFF).to_bytes(4, "big")
        line = (
            f"{rt.dev}\t{_hex(rt.dst)}\t{_hex(rt.gateway)}\t{rt.flags:04X}\t0\t0\t{rt.metric}"
            f"\t{_hex(mask)}\t0\t0\t0"
        )
        yield f"{line:<127}"


_DEV_WIDTHS: Final = (7, 7, 4, 4, 4, 5, 10, 9, 8, 7, 4, 4, 4, 5, 7, 10)


def dev_seq_show(lines: list[Any]) -> Iterator[str]:
    """/proc/net/dev (`net-procfs.c`)"""
    yield "Inter-|   Receive                                                |  Transmit"
    columns = "bytes    packets errs drop fifo "
    yield f" face |{columns}frame compressed multicast|{columns}colls carrier compressed"
    for told in sorted(lines):
        dev = DevLine(*told)
        stats = " ".join(f"{n:{w}d}" for n, w in zip(dev.stats, _DEV_WIDTHS, strict=True))
        yield f"{dev.name:>6}: {stats}"


def proto_seq_show(
    lines: list[Any], accounts: Mapping[str, tuple[int, bool | None]]
) -> Iterator[str]:
    """/proc/net/protocols (`sock.c`). accounts: protocol -> pages, and whether they press; None
    where Linux has no such state (NI)."""
    methods = "cl co di ac io in de sh ss gs se re bi br ha uh gp em"
    yield (
        f"{'protocol':<9} {'size':>4} {'sockets':>7}  {'memory':<6} {'press':<5} {'maxhdr':<6}  "
        f"{'slab':<4} {'module':<10} {methods}"
    )
    for told in lines:
        p = ProtoLine(*told)
        memory, pressure = accounts.get(p.name, (p.memory, None))
        press = "NI" if pressure is None else "yes" if pressure else "no"
        yield (
            f"{p.name:<9} {p.size:4d} {p.sockets:6d}  {memory:6d}   {press:<3} {0:6d}   "
            f"{'no':<3}  {'skbus':<10} " + " ".join(f"{m:>2}" for m in p.methods)
        )


# ---- counters -----------------------------------------------------------------------------

_SETTINGS: Final = {"TcpRtoAlgorithm": 1, "TcpRtoMin": 200, "TcpRtoMax": 120000, "TcpMaxConn": -1}
_ICMP_TYPES: Final = {
    "EchoReps": 0, "DestUnreachs": 3, "SrcQuenchs": 4, "Redirects": 5, "Echos": 8, "TimeExcds": 11,
    "ParmProbs": 12, "Timestamps": 13, "TimestampReps": 14, "AddrMasks": 17, "AddrMaskReps": 18,
}  # fmt: skip


def _group(group: str, counters: Mapping[str, int]) -> Iterator[str]:
    from skbus.core.snmp import fields

    names = fields(group)
    yield f"{group}: {' '.join(names)}"
    yield f"{group}: {' '.join(str(counters.get(group + name, 0)) for name in names)}"


def snmp_seq_show(counters: Mapping[str, int]) -> Iterator[str]:
    """/proc/net/snmp (`proc.c`)"""
    yield from _group("Ip", counters)
    yield from _group("Icmp", counters)
    types = {
        f"{way}Type{type_}": n
        for way in ("In", "Out")
        for name, type_ in sorted(_ICMP_TYPES.items(), key=lambda item: item[1])
        if (n := counters.get(f"Icmp{way}{name}", 0))
    }
    if types:
        yield f"IcmpMsg: {' '.join(types)}"
        yield f"IcmpMsg: {' '.join(map(str, types.values()))}"
    for group in ("Tcp", "Udp", "UdpLite"):
        yield from _group(group, {**_SETTINGS, **counters})


def netstat_seq_show(counters: Mapping[str, int]) -> Iterator[str]:
    """/proc/net/netstat (`proc.c`)"""
    yield from _group("TcpExt", counters)
    yield from _group("IpExt", counters)


def sockstat_seq_show(
    sock: Mapping[str, Any], tcp: Mapping[str, int], udp: Mapping[str, int], ip: Mapping[str, int]
) -> Iterator[str]:
    """/proc/net/sockstat (`proc.c`)"""
    yield f"sockets: used {sock['used']}"
    copies = sock.get("tcp_replicas", 0)
    yield (
        f"TCP: inuse {max(tcp['inuse'] - copies, 0)} orphan {tcp['orphan']} tw {tcp['tw']} "
        f"alloc {tcp['alloc'] - copies} "
        f"mem {tcp['mem']}"
    )
    yield f"UDP: inuse {udp['udp']} mem {udp['mem']}"
    yield f"UDPLITE: inuse {udp['udplite']}"
    yield f"RAW: inuse {ip['raw']}"
    yield f"FRAG: inuse {ip['frag']} memory {ip['frag_mem']}"


def merge_tcp(parts: list[Any]) -> Any:
    """Join the answers of all tcp processes: sums, and each listener once (every process has it,
    under the same number)."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Mapping) for part in parts):
        return {name: _sum([part[name] for part in parts]) for name in parts[0]}
    lines: dict[int, TcpLine] = {}
    others: list[TcpLine] = []
    for line in (TcpLine(*told) for part in parts for told in part):
        if line.state != TCP_LISTEN:
            others.append(line)
        elif line.sk in lines:
            waiting = lines[line.sk].rx_queue + line.rx_queue
            lines[line.sk] = lines[line.sk]._replace(rx_queue=waiting)
        else:
            lines[line.sk] = line
    return [*lines.values(), *others]


def _sum(values: list[Any]) -> Any:
    """Sum counts; of (pages, pressure?), sum pages, and tell whether any is under pressure."""
    if isinstance(values[0], (tuple, list)):
        return sum(pages for pages, _ in values), any(pressed for _, pressed in values)
    return sum(values)


# ---- files --------------------------------------------------------------------------------


def _sockets(process: str, show: Callable[..., Iterator[str]]) -> Callable[[Ask, str], Any]:
    return lambda ask, name: show(ask(process, name), ask("socket", name))


def _of(process: str, show: Callable[..., Iterator[str]]) -> Callable[[Ask, str], Any]:
    return lambda ask, name: show(ask(process, name))


def _counters(ask: Ask) -> dict[str, int]:
    return {**ask("", "counters"), **ask("ip", "snmp")}


_FILES: Final[dict[str, Callable[[Ask, str], Iterator[str]]]] = {
    "arp": _of("ip", arp_seq_show),
    "dev": lambda ask, name: dev_seq_show([*ask("ip", name), *ask("nic", name)]),
    "icmp": _sockets("ip", ping_v4_seq_show),
    "igmp": _of("ip", igmp_mc_seq_show),
    "netstat": lambda ask, _: netstat_seq_show(_counters(ask)),
    "protocols": lambda ask, name: proto_seq_show(
        ask("socket", name), {**ask("tcp", name), **ask("udp", name)}
    ),
    "raw": _sockets("ip", raw_seq_show),
    "route": _of("ip", fib_route_seq_show),
    "snmp": lambda ask, _: snmp_seq_show(_counters(ask)),
    "sockstat": lambda ask, name: sockstat_seq_show(
        *(ask(process, name) for process in ("socket", "tcp", "udp", "ip"))
    ),
    "tcp": _sockets("tcp", tcp4_seq_show),
    "udp": _sockets("udp", udp4_seq_show),
    "udplite": _sockets("udp", udp4_seq_show),
}

NAMES: Final = tuple(_FILES)
TRANSPORTS: Final = frozenset({"tcp", "udp", "udplite", "raw", "icmp"})
"""Files with a line for each socket."""


def read(name: str, ask: Ask) -> str:
    """The text of one file, named as in /proc/net. KeyError for an unknown name."""
    return "".join(f"{line}\n" for line in _FILES[name](ask, name))
