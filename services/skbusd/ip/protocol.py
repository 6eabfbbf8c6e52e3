# SPDX-License-Identifier: MIT
"""`inet_protos`: which process takes which IP protocol (`net/ipv4/protocol.c`).

The transports call `inet_add_protocol` when they start, and again when ip has been restarted.
"""

import errno

from skbus.core.abi import InetAddProtocol, InetDelProtocol, InetProtocolRet
from skbus.core.interfaces import (
    InetTransport,
    net_protocol_err_handler,
    net_protocol_handler,
)
from skbus.core.syscall import SysCallError
from skbusd.ip import devinet, rps
from skbusd.ip.netns import InetProtocol, IpNet, LocalHandler


def inet_add_local(net: IpNet, protocol: int, handler: LocalHandler) -> None:
    """`inet_add_protocol` for a protocol of ip's own. EEXIST where it is taken."""
    if protocol in net.inet_local or protocol in net.inet_protos:
        raise SysCallError(errno.EEXIST, f"protocol {protocol} is taken")
    net.inet_local[protocol] = handler


def inet_del_local(net: IpNet, protocol: int) -> None:
    """`inet_del_protocol` for a protocol of ip's own."""
    net.inet_local.pop(protocol, None)


def inet_add_protocol(net: IpNet, item: InetAddProtocol) -> None:
    """A transport registers; it is told of our addresses in return.

    Differs from Linux: a protocol that is taken may be taken again by the same process, which
    has been restarted. Another process is refused: EEXIST, as `inet_add_protocol_ret`.
    """
    if net.tracing:
        net.trace("inet_add_protocol", protocol=item.protocol, process=item.process)
    have = net.inet_protos.get(item.protocol)
    handler = net_protocol_handler(item.handler)
    err_handler = net_protocol_err_handler(item.err_handler)
    error = ""
    err = errno.EEXIST
    if item.protocol in net.inet_local:
        error = f"taken by {net.name}"
    elif have is not None and not rps.rps_owner(net, have, item.process):
        error = f"taken by {' '.join(have.shards) or have.process}"
    elif not 0 <= item.protocol <= 255:
        error = "no IP protocol"
        err = errno.EINVAL
    elif handler is None or (item.err_handler and err_handler is None):
        error = f"no such entries: {item.handler}, {item.err_handler}"
        err = errno.EINVAL
    if error or handler is None:
        net.call(
            item.process, InetTransport.inet_add_protocol_ret, InetProtocolRet(item.protocol, err)
        )
        net.warning("inet_add_protocol", protocol=item.protocol, process=item.process, error=error)
        return
    proto = InetProtocol(item.process, handler, err_handler)
    net.inet_protos[item.protocol] = rps.rps_add(net, item.protocol, proto, have)
    net.inet_known[item.protocol] = item.process
    if have is None:
        net.info("inet_add_protocol", protocol=item.protocol, process=item.process)
    devinet.inetdev_dump(net, item.process)


def inet_del_protocol(net: IpNet, item: InetDelProtocol) -> None:
    """A transport is gone for good: from now on its packets are answered by ICMP."""
    if net.tracing:
        net.trace("inet_del_protocol", protocol=item.protocol, process=item.process)
    have = net.inet_protos.get(item.protocol)
    if have is None or not rps.rps_owner(net, have, item.process):
        return
    left = rps.rps_del(have, item.process)
    if left is not None:
        net.inet_protos[item.protocol] = left
        return
    del net.inet_protos[item.protocol]
    net.inet_known.pop(item.protocol, None)
    net.info("inet_del_protocol", protocol=item.protocol, process=item.process)
