# SPDX-License-Identifier: MIT
"""Finding a socket (`net/ipv4/inet_hashtables.c`): established, listening, bound.

Each look-up is one dict access; nothing here walks over connections. An established key is what
an incoming segment shows: remote address, local address, and the four bytes of the ports.

Ports of outgoing connections are chosen as RFC 6056 3.3.4 (double hash) says.
"""

import errno
from typing import Final

from skbus.core.abi import GET_PORT_AUTO
from skbusd.tcp.const import TCP_LISTEN
from skbusd.tcp.netns import ANY, TcpNet
from skbusd.tcp.request_sock import TcpTimewaitSock
from skbusd.tcp.sock import TcpSock

KIND_REUSE: Final = 1
KIND_REUSEPORT: Final = 2
KIND_REUSE_ANY: Final = KIND_REUSE | KIND_REUSEPORT
KIND_LISTEN: Final = 4
KIND_BOUND: Final = 8
"""The port comes from bind(2), perhaps by way of a listener; connect(2) did not choose it."""


class InetBindBucket:
    """The owners of a local port (`struct inet_bind_bucket`): counts by address and kind, so that a
    conflict is found without a walk over them."""

    __slots__ = ("bound", "owners", "port")

    def __init__(self, port: int) -> None:
        self.port = port
        self.bound = 0
        self.owners: dict[bytes, list[int]] = {b"": [0] * 8}
        """address -> number of owners by kind (KIND_ bits 0..2); under b"" the sum."""

    def add(self, addr: bytes, kind: int) -> None:
        """One owner more."""
        counts = self.owners.get(addr)
        if counts is None:
            counts = self.owners[addr] = [0] * 8
        counts[kind & 7] += 1
        self.owners[b""][kind & 7] += 1
        self.bound += kind >> 3

    def remove(self, addr: bytes, kind: int) -> bool:
        """One owner less; True when it was the last."""
        counts = self.owners[addr]
        counts[kind & 7] -= 1
        if not any(counts):
            del self.owners[addr]
        self.owners[b""][kind & 7] -= 1
        self.bound -= kind >> 3
        return len(self.owners) == 1

    def conflict(self, addr: bytes, reuse: int) -> bool:
        """`inet_csk_bind_conflict`: may one more with these SO_REUSE... bits not share?"""
        owners = self.owners
        if addr == ANY:
            rows = [owners[b""]]
        else:
            rows = [owners[a] for a in (addr, ANY) if a in owners]
        for row in rows:
            for kind, n in enumerate(row):
                if not n:
                    continue
                if reuse & kind & KIND_REUSE and not kind & KIND_LISTEN:
                    continue
                if reuse & kind & KIND_REUSEPORT:
                    continue
                return True
        return False


def inet_ehashfn(saddr: bytes, daddr: bytes, sport: int, dport: int) -> bytes:
    """The key of a connection; saddr and sport are ours."""
    return daddr + saddr + (dport << 16 | sport).to_bytes(4, "big")


def inet_bind_hash(net: TcpNet, tp: TcpSock, addr: bytes, port: int, kind: int) -> None:
    """Make tp an owner of the port."""
    bucket = net.bhash.get(port)
    if bucket is None:
        bucket = net.bhash[port] = InetBindBucket(port)
    bucket.add(addr, kind)
    tp.bound_addr = addr
    tp.bound_port = port
    tp.bind_kind = kind


def bind_release(net: TcpNet, addr: bytes, port: int, kind: int) -> None:
    """An owner of the port goes."""
    bucket = net.bhash.get(port)
    if bucket is not None and bucket.remove(addr, kind):
        del net.bhash[port]


def inet_put_port(net: TcpNet, tp: TcpSock) -> None:
    """tp does not own its port any more."""
    if tp.bound_port:
        bind_release(net, tp.bound_addr, tp.bound_port, tp.bind_kind)
        tp.bound_port = 0


def inet_ehash_insert(net: TcpNet, tp: TcpSock) -> bool:
    """Enter an established or connecting socket; False where its four numbers are taken."""
    key = inet_ehashfn(tp.saddr, tp.daddr, tp.sport, tp.dport)
    if key in net.ehash:
        return False
    tp.key = key
    net.ehash[key] = tp
    return True


def inet_unhash(net: TcpNet, tp: TcpSock) -> None:
    """Take the socket out of the table it stands in."""
    if tp.key:
        if net.ehash.get(tp.key) is tp:
            del net.ehash[tp.key]
        tp.key = b""
    elif tp.state == TCP_LISTEN:
        at = (tp.saddr or ANY, tp.sport)
        group = net.lhash.get(at)
        if group is not None and tp in group:
            group.remove(tp)
            if not group:
                del net.lhash[at]


def inet_hash_listener(net: TcpNet, tp: TcpSock) -> None:
    """Enter a listener."""
    net.lhash.setdefault((tp.saddr or ANY, tp.sport), []).append(tp)


def inet_lookup_listener(
    net: TcpNet, saddr: bytes, sport: int, daddr: bytes, dport: int, dif: int
) -> TcpSock | None:
    """The listener for a SYN from saddr:sport to our daddr:dport, by device `dif`. A bound address
    comes before the wildcard, a socket bound to the device before others. Of several with
    SO_REUSEPORT the flow's hash chooses one."""
    group = _of_device(net.lhash.get((daddr, dport)), dif)
    group = group or _of_device(net.lhash.get((ANY, dport)), dif)
    if net.tracing:
        net.trace("inet_lookup_listener", daddr=daddr, dport=dport, found=len(group or ()))
    if not group:
        return None
    if len(group) == 1:
        return group[0]
    flow = net.siphash(saddr + daddr + (sport << 16 | dport).to_bytes(4, "big"), net.net_secret)
    return group[(flow & 0xFFFFFFFF) * len(group) >> 32]


def _of_device(group: list[TcpSock] | None, dif: int) -> list[TcpSock] | None:
    """`compute_score`: the sockets that are bound to device dif, else those bound to none."""
    if not group or not any(tp.oif for tp in group):
        return group
    return [tp for tp in group if tp.oif == dif] or [tp for tp in group if not tp.oif]


def reserved_ports(text: str) -> frozenset[int]:
    """`net.ipv4.ip_local_reserved_ports`, e.g. "8080,9000-9100"; other text is skipped."""
    out: set[int] = set()
    for part in text.replace(",", " ").split():
        low, _, high = part.partition("-")
        if low.isdigit() and (not high or high.isdigit()):
            out.update(range(int(low), int(high or low) + 1))
    return frozenset(out)


def inet_csk_get_port(net: TcpNet, tp: TcpSock, addr: bytes, port: int, reuse: int) -> int:
    """bind(2): own `port`, or a free one for 0. Returns an errno, 0 for success. With GET_PORT_AUTO
    `port` is one that another shard has found free; one below -1 asks for the next behind -port."""
    if net.tracing:
        net.trace("inet_csk_get_port", sk=tp.number, addr=addr, port=port)
    kind = reuse & KIND_REUSE_ANY | KIND_BOUND
    after = -port if port < 0 else 0
    if port > 0:
        bucket = net.bhash.get(port)
        mode = reuse & KIND_REUSEPORT if reuse & GET_PORT_AUTO else reuse
        if bucket is not None and bucket.conflict(addr, mode):
            return errno.EADDRINUSE
        inet_bind_hash(net, tp, addr, port, kind)
        return 0
    return inet_csk_find_open_port(net, tp, addr, reuse & KIND_REUSEPORT, kind, after)


def inet_csk_find_open_port(
    net: TcpNet, tp: TcpSock, addr: bytes, reuse: int, kind: int, after: int
) -> int:
    """`inet_csk_find_open_port`: a free port; after: the next one behind that, 0 for any."""
    low, high = net.sysctl["net.ipv4.ip_local_port_range"]
    reserved = reserved_ports(net.sysctl["net.ipv4.ip_local_reserved_ports"])
    remaining = (high - low + 1) & ~1 or 2
    start = net.rand.randrange(0, remaining, 2)
    if after:
        for candidate in _ports_behind(after - low, remaining):
            if _port_is_free(net, low + candidate, high, reserved, addr, reuse):
                inet_bind_hash(net, tp, addr, low + candidate, kind)
                return 0
        return errno.EADDRINUSE
    # bind(2) takes the odd half first and leaves the even one to connect(2).
    for parity in (1, 0):
        for i in range(0, remaining, 2):
            candidate = low + ((start + i) % remaining | parity)
            if _port_is_free(net, candidate, high, reserved, addr, reuse):
                inet_bind_hash(net, tp, addr, candidate, kind)
                return 0
    return errno.EADDRINUSE


def _port_is_free(
    net: TcpNet, port: int, high: int, reserved: frozenset[int], addr: bytes, reuse: int
) -> bool:
    bucket = net.bhash.get(port)
    return port <= high and port not in reserved and not (bucket and bucket.conflict(addr, reuse))


def _ports_behind(offset: int, remaining: int) -> list[int]:
    """The odd ports, then the even ones, then the odd ones again, from behind `offset`."""
    order = [*range(1, remaining, 2), *range(0, remaining, 2)]
    at = order.index(offset) + 1 if 0 <= offset < remaining else 0
    return order[at:] + order[:at]


def inet_hash_connect(net: TcpNet, tp: TcpSock) -> int:
    """Choose a local port if there is none, and enter the socket. Returns an errno.

    RFC 6056 3.3.4. A port that other connections use is shared where the remote end differs. Of
    several shards, each takes ports for which the answers come to itself. EREMCHG where a bound
    port belongs to another shard.
    """
    if net.tracing:
        net.trace("inet_hash_connect", sk=tp.number, daddr=tp.daddr, dport=tp.dport, sport=tp.sport)
    if tp.sport:
        key = inet_ehashfn(tp.saddr, tp.daddr, tp.sport, tp.dport)
        if net.shards > 1 and net.shard_of(key) != net.shard:
            return errno.EREMCHG
        if not _check_established(net, tp, key):
            return errno.EADDRNOTAVAIL
        inet_ehash_insert(net, tp)
        return 0
    low, high = net.sysctl["net.ipv4.ip_local_port_range"]
    reserved = reserved_ports(net.sysctl["net.ipv4.ip_local_reserved_ports"])
    remaining = (high - low + 1) & ~1 or 2
    dport = tp.dport.to_bytes(2, "big")
    port_offset = net.siphash(tp.saddr + tp.daddr + dport, net.net_secret)
    index = port_offset >> 32 & 0xFF
    offset = (net.table_perturb[index] + port_offset) % remaining & ~1
    for parity in (0, 1):
        for i in range(0, remaining, 2):
            port = low + ((offset + i) % remaining | parity)
            if port > high or port in reserved:
                continue
            bucket = net.bhash.get(port)
            key = inet_ehashfn(tp.saddr, tp.daddr, port, tp.dport)
            if net.shards > 1 and net.shard_of(key) != net.shard:
                continue
            if bucket is not None and (bucket.bound or not _check_established(net, tp, key)):
                continue
            net.table_perturb[index] += i + 2
            inet_bind_hash(net, tp, tp.saddr, port, 0)
            tp.sport = port
            inet_ehash_insert(net, tp)
            return 0
    return errno.EADDRNOTAVAIL


def _check_established(net: TcpNet, tp: TcpSock, key: bytes) -> bool:
    """`__inet_check_established`: may tp connect with these four numbers? A connection in
    TIME_WAIT gives way where timestamps make that safe (RFC 6191 2)."""
    other = net.ehash.get(key)
    if other is None:
        return True
    if type(other) is not TcpTimewaitSock:
        return False
    return tcp_twsk_unique(net, tp, other)


def tcp_twsk_unique(net: TcpNet, tp: TcpSock, tw: TcpTimewaitSock) -> bool:
    """Take the place of a TIME_WAIT, where `net.ipv4.tcp_tw_reuse` is 1, or 2 for loopback, and a
    second has passed on the timestamp clock. tp then begins beyond the old numbers."""
    reuse = net.sysctl["net.ipv4.tcp_tw_reuse"]
    if reuse == 2:
        reuse = tw.daddr[:1] == b"\x7f"
    if not reuse or not tw.ts_recent_stamp or net.now // 1_000_000_000 <= tw.ts_recent_stamp:
        return False
    tp.write_seq = (tw.snd_nxt + 65535 + 2) & 0xFFFFFFFF or 1
    tp.ts_recent = tw.ts_recent
    tp.ts_recent_stamp = tw.ts_recent_stamp
    inet_twsk_deschedule_put(net, tw)
    return True


def inet_twsk_deschedule_put(net: TcpNet, tw: TcpTimewaitSock) -> None:
    """The end of a TIME_WAIT."""
    if tw.timer is not None:
        net.del_timer(tw.timer)
        tw.timer = None
    if net.ehash.get(tw.key) is tw:
        del net.ehash[tw.key]
        net.tw_count -= 1
        if tw.bind_kind >= 0:
            bind_release(net, tw.bound_addr, tw.sport, tw.bind_kind)
            tw.bind_kind = -1
