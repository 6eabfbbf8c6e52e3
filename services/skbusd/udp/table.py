# SPDX-License-Identifier: MIT
"""Ports, and the sockets that have them (`struct udp_table` and `udp_lib_get_port` of
`net/ipv4/udp.c`).

Connected sockets are found by their four-tuple, others by bound address and port, each by one
look-up in a dict. RFC 6056 for automatic ports.
"""

from errno import EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EINVAL
from typing import Any, Final

from skbus.core.abi import GetPort, LocalAddr
from skbus.inet.headers.ipv4 import ipv4_is_multicast
from skbus.inet.mcast import ip_mc_sf_allow
from skbus.inet.transport import (
    INADDR_ANY,
    SK_REUSEADDR,
    SK_REUSEPORT,
    SOCK_BINDADDR_LOCK,
    SOCK_BINDPORT_LOCK,
    sk_ret,
)
from skbusd.udp.netns import (
    INADDR_BROADCAST,
    IPPROTO_UDPLITE,
    UdpNet,
    UdpSock,
    UdpTable,
)

_HASH_PRIME: Final = 2**89 - 1


# ---- the tables --------------------------------------------------------------------------


def udp_table(net: UdpNet, sk: UdpSock) -> UdpTable:
    """`sk->sk_prot->h.udp_table`: UDP and UDP-Lite have ports of their own."""
    return net.udplite_table if sk.protocol == IPPROTO_UDPLITE else net.udp_table


def udp_lib_hash(net: UdpNet, sk: UdpSock) -> None:
    """Put a socket with a port where packets find it."""
    udp_table(net, sk).ports.setdefault(sk.inet_num, []).append(sk)
    _hash_addr(net, sk)


def _hash_addr(net: UdpNet, sk: UdpSock) -> None:
    if sk.connected():
        key = (sk.inet_rcv_saddr, sk.inet_num, sk.inet_daddr, sk.inet_dport)
        udp_table(net, sk).hash4.setdefault(key, []).insert(0, sk)
    else:
        udp_table(net, sk).hash2.setdefault((sk.inet_rcv_saddr, sk.inet_num), []).insert(0, sk)


def _unhash_addr(net: UdpNet, sk: UdpSock) -> None:
    if sk.connected():
        key4 = (sk.inet_rcv_saddr, sk.inet_num, sk.inet_daddr, sk.inet_dport)
        _remove(udp_table(net, sk).hash4, key4, sk)
    else:
        _remove(udp_table(net, sk).hash2, (sk.inet_rcv_saddr, sk.inet_num), sk)


def _remove(table: dict[Any, list[UdpSock]], key: object, sk: UdpSock) -> None:
    socks = table.get(key)
    if socks is not None and sk in socks:
        socks.remove(sk)
        if not socks:
            del table[key]


def udp_lib_unhash(net: UdpNet, sk: UdpSock) -> None:
    """Take a socket out of all tables."""
    if sk.inet_num:
        _unhash_addr(net, sk)
        _remove(udp_table(net, sk).ports, sk.inet_num, sk)


def udp_lib_rehash(net: UdpNet, sk: UdpSock, rcv_saddr: bytes, daddr: bytes, dport: int) -> None:
    """A socket's addresses change while it has a port (connect, disconnect)."""
    if sk.inet_num:
        _unhash_addr(net, sk)
    sk.inet_rcv_saddr = rcv_saddr
    sk.inet_daddr = daddr
    sk.inet_dport = dport
    if sk.inet_num:
        _hash_addr(net, sk)


# ---- look-up -----------------------------------------------------------------------------


def udp_ehashfn(net: UdpNet, laddr: bytes, lport: int, faddr: bytes, fport: int) -> int:
    """A keyed hash of the four-tuple, 32 bits."""
    flow = int.from_bytes(laddr + faddr, "big") << 32 | lport << 16 | fport
    return flow * net.udp_ehash_secret % _HASH_PRIME & 0xFFFFFFFF


def udp4_lib_lookup(
    net: UdpNet,
    saddr: bytes,
    sport: int,
    daddr: bytes,
    dport: int,
    dif: int,
    udptable: UdpTable | None = None,
) -> UdpSock | None:
    """`__udp4_lib_lookup`: the socket for a datagram from saddr to daddr on device dif. A
    connected one first, then one bound to the address, then one bound to none."""
    table = udptable or net.udp_table
    socks = table.hash4.get((daddr, dport, saddr, sport))
    sk = None
    if socks is not None:
        sk = _best(net, socks, saddr, sport, daddr, dport, dif)
    if sk is None:
        socks = table.hash2.get((daddr, dport))
        if socks is not None:
            sk = _best(net, socks, saddr, sport, daddr, dport, dif)
        if sk is None:
            socks = table.hash2.get((INADDR_ANY, dport))
            if socks is not None:
                sk = _best(net, socks, saddr, sport, daddr, dport, dif)
    if net.tracing:
        net.trace(
            "__udp4_lib_lookup",
            saddr=saddr,
            sport=sport,
            daddr=daddr,
            dport=dport,
            sk=sk.sk if sk is not None else 0,
        )
    return sk


def _best(
    net: UdpNet, socks: list[UdpSock], saddr: bytes, sport: int, daddr: bytes, dport: int, dif: int
) -> UdpSock | None:
    """`compute_score`: a socket bound to the device beats one that is not. Equals with SO_REUSEPORT
    share by hash; else the latest wins."""
    if len(socks) == 1:
        sk = socks[0]
        return sk if not sk.sk_bound_dev_if or sk.sk_bound_dev_if == dif else None
    fit = [sk for sk in socks if sk.sk_bound_dev_if == dif] if dif else []
    if not fit:
        fit = [sk for sk in socks if not sk.sk_bound_dev_if]
    if not fit:
        return None
    if len(fit) > 1 and fit[0].reuse & SK_REUSEPORT:
        # reuseport_select_sock
        group = [sk for sk in fit if sk.reuse & SK_REUSEPORT]
        return group[udp_ehashfn(net, daddr, dport, saddr, sport) * len(group) >> 32]
    return fit[0]


def udp_mcast_socks(
    udptable: UdpTable, saddr: bytes, sport: int, daddr: bytes, dport: int, dif: int
) -> list[UdpSock]:
    """`__udp_is_mcast_sock`: all sockets that take a multicast or broadcast datagram."""
    return [
        sk
        for sk in udptable.ports.get(dport, ())
        if (sk.inet_rcv_saddr in (INADDR_ANY, daddr))
        and (not sk.connected() or (sk.inet_daddr == saddr and sk.inet_dport == sport))
        and (not sk.sk_bound_dev_if or sk.sk_bound_dev_if == dif)
        and ip_mc_sf_allow(sk.mc_list, sk.mc_all, daddr, saddr, dif)
    ]


# ---- ports -------------------------------------------------------------------------------


def udp_conflicts(net: UdpNet, sk: UdpSock, addr: bytes, port: int) -> bool:
    """`udp_lib_lport_inuse`: does another socket keep this one from the port?"""
    for other in udp_table(net, sk).ports.get(port, ()):
        if other is sk:
            continue
        if other.reuse & sk.reuse & SK_REUSEADDR:
            continue
        if (
            other.sk_bound_dev_if
            and sk.sk_bound_dev_if
            and other.sk_bound_dev_if != sk.sk_bound_dev_if
        ):
            continue
        if other.inet_rcv_saddr not in (addr, INADDR_ANY) and addr != INADDR_ANY:
            continue
        if other.reuse & sk.reuse & SK_REUSEPORT:
            continue
        return True
    return False


def inet_is_local_reserved_port(net: UdpNet, port: int) -> bool:
    """Is the port kept from automatic choice (`ip_local_reserved_ports`)?"""
    text = net.sysctl["net.ipv4.ip_local_reserved_ports"]
    for part in text.split(",") if text else ():
        low, _, high = part.partition("-")
        try:
            if int(low) <= port <= int(high or low):
                return True
        except ValueError:
            continue
    return False


def udp_lib_get_port(net: UdpNet, sk: UdpSock, addr: bytes, port: int) -> int:
    """Give a socket a port; 0 asks for any. Returns an errno, 0 for success."""
    ports = udp_table(net, sk).ports
    if port:
        if udp_conflicts(net, sk, addr, port):
            return EADDRINUSE
    else:
        low, high = net.sysctl["net.ipv4.ip_local_port_range"]
        count = high - low + 1
        if count <= 0:
            return EADDRINUSE
        start = net.rand.randrange(count)
        for i in range(count):
            port = low + (start + i) % count
            if port not in ports and not inet_is_local_reserved_port(net, port):
                break
        else:
            # No port is unused; one may still be shared.
            for i in range(count):
                port = low + (start + i) % count
                if not udp_conflicts(net, sk, addr, port) and not inet_is_local_reserved_port(
                    net, port
                ):
                    break
            else:
                return EADDRINUSE
    sk.inet_num = port
    sk.inet_rcv_saddr = sk.inet_saddr = addr
    udp_lib_hash(net, sk)
    return 0


def inet_addr_valid(net: UdpNet, sk: UdpSock, addr: bytes) -> bool:
    """May a socket be bound to this address (`inet_addr_valid_or_nonlocal`)?"""
    if addr in (INADDR_ANY, INADDR_BROADCAST) or ipv4_is_multicast(addr):
        return True
    if addr in net.addrs or addr in net.broadcasts or addr[0] == 127:
        return True
    # Before ip has told us any address, we do not know which are ours. udp or ip has just been
    # started anew, and sockets that were bound must be bound again.
    return (
        sk.freebind
        or sk.transparent
        or bool(net.sysctl["net.ipv4.ip_nonlocal_bind"])
        or not net.addrs
    )


def inet_autobind(net: UdpNet, sk: UdpSock) -> int:
    """A port for a socket that connects or sends without. EAGAIN where none is free."""
    return EAGAIN if udp_lib_get_port(net, sk, INADDR_ANY, 0) else 0


def udp_v4_get_port(net: UdpNet, item: GetPort) -> None:
    """bind(2): answers with [address, port]."""
    sk = net.socks.get(item.sk)
    err = 0
    if sk is None or len(item.addr) != 4 or not 0 <= item.port <= 65535 or sk.inet_num:
        err = EINVAL
    elif not inet_addr_valid(net, sk, item.addr):
        err = EADDRNOTAVAIL
    else:
        sk.reuse = item.reuse
        sk.sk_bound_dev_if = item.ifindex or sk.sk_bound_dev_if
        err = udp_lib_get_port(net, sk, item.addr, item.port)
        if not err:
            if item.addr != INADDR_ANY:
                sk.sk_userlocks |= SOCK_BINDADDR_LOCK
            if item.port:
                sk.sk_userlocks |= SOCK_BINDPORT_LOCK
            if ipv4_is_multicast(item.addr) or item.addr in net.broadcasts:
                sk.inet_saddr = INADDR_ANY  # to receive on, not to send from
    if net.tracing:
        net.trace("udp_v4_get_port", sk=item.sk, addr=item.addr, port=item.port, err=err)
    val = LocalAddr(sk.inet_rcv_saddr, sk.inet_num) if sk is not None and not err else None
    sk_ret(net, item.sk, item.req, err, val)
