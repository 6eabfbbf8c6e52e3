# SPDX-License-Identifier: MIT
"""Groups of UDP sockets: ip decides, as devices are shared, and tells which ones it is
(`do_ip_setsockopt` of `net/ipv4/ip_sockglue.c`; `skbusd.ip.mcast` does the work).

`ip_sockglue` calls `ip_mc_setsockopt`; ip answers by `ip_mc_ret`. RFC 3376 2, RFC 3678.
"""

from errno import EADDRNOTAVAIL, ENETDOWN

from skbus.core.abi import Getsockopt, McDropSocket, McRet, McSetsockopt, Setsockopt
from skbus.core.interfaces import Ip
from skbus.inet.mcast import MreqError, decode_mc_list, msfilter_get, restore_options
from skbus.inet.transport import sk_ret
from skbusd.udp.netns import UdpNet, UdpSock


def ip_mc_setsockopt(net: UdpNet, item: Setsockopt) -> None:
    """A membership option: ask ip."""
    net.next_req += 1
    net.mc_requests[net.next_req] = (item.sk, item.req)
    request = McSetsockopt(net.name, item.sk, net.next_req, item.optname, item.value)
    net.call("ip", Ip.ip_mc_setsockopt, request)


def ip_mc_ret(net: UdpNet, item: McRet) -> None:
    """ip's answer: the groups that the socket is in, also where the option failed."""
    request = net.mc_requests.pop(item.req, None)
    if net.tracing:
        net.trace("ip_mc_ret", sk=item.sk, err=item.err)
    if request is None:
        return
    number, req = request
    mc_list = decode_mc_list(item.mc_list)
    sk = net.socks.get(number)
    if sk is None:
        # It was closed meanwhile, before ip had heard of the group.
        net.call("ip", Ip.ip_mc_drop_socket, McDropSocket(net.name, number))
    else:
        sk.mc_list = mc_list
    sk_ret(net, number, req, item.err, mc_list)


def ip_mc_getsockopt(net: UdpNet, sk: UdpSock, item: Getsockopt) -> None:
    """IP_MSFILTER, MCAST_MSFILTER.

    Differs from Linux: of the socket's first group, as system calls bring no value in here.
    """
    try:
        value = msfilter_get(sk.mc_list, item.optname, b"", EADDRNOTAVAIL)
    except MreqError as e:
        sk_ret(net, item.sk, item.req, int(e.args[0]))
        return
    sk_ret(net, item.sk, item.req, 0, value)


def ip_mc_drop_socket(net: UdpNet, sk: UdpSock) -> None:
    """The socket is closed: it leaves its groups."""
    if sk.mc_list:
        sk.mc_list = ()
        net.call("ip", Ip.ip_mc_drop_socket, McDropSocket(net.name, sk.sk))


def restore(net: UdpNet) -> None:
    """ip has been started anew: it is told of all groups, and who waits is told that."""
    requests, net.mc_requests = net.mc_requests, {}
    for number, req in requests.values():
        sk_ret(net, number, req, ENETDOWN, None)
    for sk in net.socks.values():
        for optname, value in restore_options(sk.mc_list):
            item = McSetsockopt(net.name, sk.sk, 0, optname, value)
            net.call("ip", Ip.ip_mc_setsockopt, item)
