# SPDX-License-Identifier: MIT
"""`inet_protos`: which process takes which IP protocol (`net/ipv4/protocol.c`).

The transports call `inet_add_protocol` when they start, and again when ip has been restarted.
"""

from skbus.abi import ENTRIES, SKB_ENTRIES, InetAddProtocol, InetDelProtocol
from skbusd.ip import devinet
from skbusd.ip.netns import IPPROTO_ICMP, IPPROTO_IGMP, InetProtocol, IpNet


def inet_add_protocol(net: IpNet, item: InetAddProtocol) -> None:
    """A transport registers; it is told of our addresses in return.

    Differs from Linux: a protocol that is taken may be taken again by the same process, which
    has been restarted (Linux: EEXIST); another process is refused.
    """
    if net.tracing:
        net.trace("inet_add_protocol", protocol=item.protocol, process=item.process)
    have = net.inet_protos.get(item.protocol)
    error = ""
    if not 0 <= item.protocol <= 255 or item.protocol in (IPPROTO_ICMP, IPPROTO_IGMP):
        error = "not a protocol that can be taken"
    elif have is not None and have.process != item.process:
        error = f"taken by {have.process}"
    elif item.handler not in SKB_ENTRIES or (item.err_handler and item.err_handler not in ENTRIES):
        error = f"no such entries: {item.handler}, {item.err_handler}"
    if error:
        net.warning("inet_add_protocol", protocol=item.protocol, process=item.process, error=error)
        return
    net.inet_protos[item.protocol] = InetProtocol(item.process, item.handler, item.err_handler)
    net.inet_known[item.protocol] = item.process
    if have is None:
        net.info("inet_add_protocol", protocol=item.protocol, process=item.process)
    devinet.inetdev_dump(net, item.process)


def inet_del_protocol(net: IpNet, item: InetDelProtocol) -> None:
    """A transport is gone for good: from now on its packets are answered by ICMP."""
    if net.tracing:
        net.trace("inet_del_protocol", protocol=item.protocol, process=item.process)
    have = net.inet_protos.get(item.protocol)
    if have is None or have.process != item.process:
        return
    del net.inet_protos[item.protocol]
    net.inet_known.pop(item.protocol, None)
    net.info("inet_del_protocol", protocol=item.protocol, process=item.process)
