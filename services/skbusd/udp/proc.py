# SPDX-License-Identifier: MIT
"""udp's part of /proc/net/udp, /proc/net/udplite, sockstat and protocols (`net/ipv4/udp.c`:
udp4_format_sock), as plain values for `skbus proc` (`skbus.inet.proc`)."""

from typing import Any

from skbus.inet.proc import TCP_CLOSE, TCP_ESTABLISHED, DatagramLine
from skbusd.udp.netns import IPPROTO_UDP, IPPROTO_UDPLITE, UdpNet
from skbusd.udp.udp import PAGE_SIZE


def proc_net(net: UdpNet, name: str) -> Any:
    """udp's part of one file; None where it has none."""
    if name == "udp":
        return udp_lines(net, IPPROTO_UDP)
    if name == "udplite":
        return udp_lines(net, IPPROTO_UDPLITE)
    if name == "sockstat":
        return {
            "udp": sum(len(socks) for socks in net.udp_table.ports.values()),
            "udplite": sum(len(socks) for socks in net.udplite_table.ports.values()),
            "mem": udp_pages(net),
        }
    if name == "protocols":
        return {"UDP": (udp_pages(net), None), "UDP-Lite": (udp_pages(net), None)}
    return None


def udp_pages(net: UdpNet) -> int:
    """The pages that udp_mem limits: both protocols have one account, which counts bytes here."""
    return -(-net.udp_memory_allocated // PAGE_SIZE)


def udp_lines(net: UdpNet, protocol: int) -> list[DatagramLine]:
    """Sockets that have a port."""
    table = net.udp_table if protocol == IPPROTO_UDP else net.udplite_table
    return [
        DatagramLine(
            sk.sk,
            TCP_ESTABLISHED if sk.connected() else TCP_CLOSE,
            (sk.inet_rcv_saddr, sk.inet_num),
            (sk.inet_daddr, sk.inet_dport),
            sk.sk_rmem_alloc,
            sk.sk_drops,
        )
        for port in sorted(table.ports)
        for sk in table.ports[port]
    ]
