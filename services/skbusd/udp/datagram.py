# SPDX-License-Identifier: MIT
"""Connected datagram sockets (`net/ipv4/datagram.c`), and the beginning and end of a socket."""

from errno import EACCES, EBADF, EINVAL, ENOBUFS

from skbus.core.abi import Close, Connect, Connected, Disconnect, InitSock, Shutdown
from skbus.inet.headers.ipv4 import ipv4_is_multicast
from skbus.inet.transport import (
    INADDR_ANY,
    SOCK_BINDADDR_LOCK,
    SOCK_BINDPORT_LOCK,
    ip_mc_drop_socket,
    sk_ret,
)
from skbusd.udp import route, table
from skbusd.udp.netns import (
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    RTN_BROADCAST,
    Dst,
    UdpNet,
    UdpSock,
    Waiter,
)


def udp_init_sock(net: UdpNet, item: InitSock) -> None:
    """A socket begins."""
    if net.tracing:
        net.trace("udp_init_sock", sk=item.sk)
    if item.protocol not in (0, IPPROTO_UDP, IPPROTO_UDPLITE):
        net.warning("udp_init_sock", sk=item.sk, protocol=item.protocol, error="not UDP")
        return
    old = net.socks.get(item.sk)
    if old is not None:
        table.udp_lib_unhash(net, old)
    rcvbuf = net.sysctl["net.core.rmem_default"]
    net.socks[item.sk] = UdpSock(item.sk, rcvbuf, item.protocol or IPPROTO_UDP)


def ip4_datagram_connect(net: UdpNet, item: Connect) -> None:
    """connect(2): remember the peer, once ip has said which address of ours leads there."""
    if net.tracing:
        net.trace("ip4_datagram_connect", sk=item.sk, daddr=item.addr, dport=item.port)
    sk = net.socks.get(item.sk)
    if sk is None or len(item.addr) != 4 or not 0 <= item.port <= 65535:
        sk_ret(net, item.sk, item.req, EBADF if sk is None else EINVAL)
        return
    if not sk.inet_num:
        err = table.inet_autobind(net, sk)
        if err:
            sk_ret(net, item.sk, item.req, err)
            return
    if not item.req:
        # A socket from an earlier life of this process: it is connected, and its datagrams are on
        # their way. Only its route is asked for anew.
        table.udp_lib_rehash(net, sk, sk.inet_rcv_saddr, item.addr, item.port)
    key = route_key(sk, item.addr)
    dst = route.sk_dst_get(net, key)
    waiter = Waiter(ip4_datagram_connect_route, item=item)
    if dst is not None:
        ip4_datagram_connect_route(net, waiter, 0, dst)
    elif route.ip_route_output_flow(net, key, sk.tos, waiter):
        sk_ret(net, item.sk, item.req, ENOBUFS)


def route_key(
    sk: UdpSock, daddr: bytes, saddr: bytes = b"", oif: int = 0
) -> tuple[bytes, bytes, int]:
    """The key of the route of a socket's datagrams to daddr. saddr, oif: of IP_PKTINFO."""
    oif = oif or sk.sk_bound_dev_if
    saddr = saddr or sk.inet_saddr
    if ipv4_is_multicast(daddr):
        oif = oif or sk.mc_index
        if saddr == INADDR_ANY:
            saddr = sk.mc_addr
    return daddr, b"" if saddr == INADDR_ANY else saddr, oif or sk.uc_index


def ip4_datagram_connect_route(net: UdpNet, waiter: Waiter, err: int, dst: Dst | None) -> None:
    """The route is known, or there is none: finish the connect."""
    item = waiter.item
    assert item is not None
    sk = net.socks.get(item.sk)
    if sk is None:
        return  # closed meanwhile
    if dst is not None and dst.rt_type == RTN_BROADCAST and not sk.broadcast:
        err = EACCES
    if err or dst is None:
        sk_ret(net, item.sk, item.req, err)
        return
    rcv_saddr = sk.inet_rcv_saddr
    if sk.inet_saddr == INADDR_ANY:
        sk.inet_saddr = dst.saddr
    if rcv_saddr == INADDR_ANY:
        rcv_saddr = dst.saddr
    table.udp_lib_rehash(net, sk, rcv_saddr, dst.daddr, item.port)
    # From now on the socket sends from a settled address, by the same route.
    net.dst_cache.setdefault(route_key(sk, dst.daddr), dst)
    sk_ret(net, item.sk, item.req, 0, Connected(sk.inet_saddr, sk.inet_num))


def udp_disconnect(net: UdpNet, item: Disconnect) -> None:
    """connect(2) to AF_UNSPEC: no peer any more; frees address and port unless bind chose them."""
    if net.tracing:
        net.trace("udp_disconnect", sk=item.sk)
    sk = net.socks.get(item.sk)
    if sk is None:
        sk_ret(net, item.sk, item.req, EBADF)
        return
    rcv_saddr = sk.inet_rcv_saddr
    if not sk.sk_userlocks & SOCK_BINDADDR_LOCK:
        rcv_saddr = sk.inet_saddr = INADDR_ANY
    table.udp_lib_rehash(net, sk, rcv_saddr, INADDR_ANY, 0)
    if not sk.sk_userlocks & SOCK_BINDPORT_LOCK:
        table.udp_lib_unhash(net, sk)
        sk.inet_num = 0
    sk_ret(net, item.sk, item.req, 0)


def udp_shutdown(net: UdpNet, item: Shutdown) -> None:
    """shutdown(2): only sending is udp's to refuse."""
    sk = net.socks.get(item.sk)
    if sk is not None:
        sk.sk_shutdown |= item.how & 3


def udp_lib_close(net: UdpNet, item: Close) -> None:
    """close(2)"""
    if net.tracing:
        net.trace("udp_lib_close", sk=item.sk)
    sk = net.socks.pop(item.sk, None)
    if sk is not None:
        ip_mc_drop_socket(net, sk)
        table.udp_lib_unhash(net, sk)
        net.udp_memory_allocated -= sk.sk_rmem_alloc
