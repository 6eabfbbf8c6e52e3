# SPDX-License-Identifier: MIT
"""Options that hosts and routers fill in: record route and timestamp (`net/ipv4/ip_options.c`).

`icmp_reply` and `icmp_send` send them back, `ip_forward` adds itself. Their form was checked by
`parse_options`.
RFC 791 3.1; RFC 1122 3.2.2.6.

Differs from Linux: other options are neither echoed nor changed; source routes were refused.
"""

from typing import Final

from skbus.core.net import MSEC
from skbus.inet.headers import HeaderError
from skbus.inet.headers.ipv4 import (
    IP_HLEN,
    IPOPT_TS_KINDS,
    IPOPT_TS_PRESPEC,
    IPOPT_TS_TSANDADDR,
    IPOPT_TS_TSONLY,
    IpOptions,
    parse_options,
)
from skbusd.ip.netns import IpNet

_DAY_MS: Final = 24 * 3600 * 1000
_NOT_UTC: Final = 0x80000000


def inet_current_timestamp(net: IpNet) -> int:
    """ms since midnight. The high-order bit says that the time may not be UTC (RFC 792), because a
    stack has a clock of its own."""
    return net.now // MSEC % _DAY_MS | _NOT_UTC


def _fill_rr(out: bytearray, offset: int, addr: bytes) -> None:
    pointer = out[offset + 2]
    if pointer + 3 <= out[offset + 1]:
        out[offset + pointer - 1 : offset + pointer + 3] = addr
        out[offset + 2] = pointer + 4


def _fill_ts(net: IpNet, out: bytearray, offset: int, addr: bytes, received: bool) -> None:
    length, pointer, flags = out[offset + 1], out[offset + 2], out[offset + 3]
    flag = flags & 0xF
    at = offset + pointer - 1
    size = 4 if flag == IPOPT_TS_TSONLY else 8
    if pointer + size - 1 > length:
        if received and flag != IPOPT_TS_PRESPEC and flags >> 4 < 15:
            out[offset + 3] = flags + 0x10  # one more that did not fit
        return
    if flag not in IPOPT_TS_KINDS:
        return
    if flag == IPOPT_TS_PRESPEC and bytes(out[at : at + 4]) not in net.local_addrs:
        return
    if flag == IPOPT_TS_TSANDADDR:
        out[at : at + 4] = addr
    out[at + size - 4 : at + size] = inet_current_timestamp(net).to_bytes(4, "big")
    out[offset + 2] = pointer + size


def ip_options_fill(
    net: IpNet, options: bytes, parsed: IpOptions, addr: bytes, *, received: bool = True
) -> bytes:
    """The options, with our address and time written into their next free place. received: the
    options came with a packet, and a time that does not fit is counted (RFC 791 3.1)."""
    if parsed.rr is None and parsed.ts is None:
        return options
    out = bytearray(options)
    if parsed.rr is not None:
        _fill_rr(out, parsed.rr.offset, addr)
    if parsed.ts is not None:
        _fill_ts(net, out, parsed.ts.offset, addr, received)
    return bytes(out)


def ip_options_build(net: IpNet, options: bytes, addr: bytes) -> bytes:
    """The options of a packet that we send: a recorded route, or list of times, begins with us."""
    try:
        parsed = parse_options(options, received=True)
        return ip_options_fill(net, options, parsed, addr, received=False)
    except HeaderError:
        return options  # not ours to judge: the caller has checked them


def ip_options_echo(net: IpNet, options: bytes, addr: bytes) -> bytes:
    """The options of a reply or an error: record route and timestamp, in which we stand as
    receiver; `ip_options_build` adds us as sender. Where an option is there twice, an error, only
    those in front of the second."""
    try:
        parsed = parse_options(options, received=True)
    except HeaderError as e:
        options = options[: max(e.pointer - IP_HLEN, 0)]
    try:
        parsed = parse_options(options, received=True)
    except HeaderError:
        return b""
    filled = ip_options_fill(net, options, parsed, addr)
    there = [opt for opt in (parsed.rr, parsed.ts) if opt is not None]
    return b"".join([filled[opt.offset : opt.offset + len(opt.data)] for opt in there])
