# SPDX-License-Identifier: MIT
"""SYN cookies (`net/ipv4/syncookies.c`): when the SYN queue is full, the connection's first number
takes the place of a request sock (RFC 4987 3.6).

    isn = [ minute, 8 bits | (hash(connection, peer's number, minute) + index of MSS), 24 bits ]

Window scale and SACK ride in the low 6 bits of the SYN-ACK's timestamp, which the peer echoes.
Called by tcp_ipv4.
"""

from typing import Final

from skbus.core.seq import MASK
from skbus.inet.headers.tcp import TcpHdr, TcpOptions
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock

MSSTAB: Final = (536, 1300, 1440, 1460)
COOKIE_PERIOD: Final = 60 * 1_000_000_000
MAX_SYNCOOKIE_AGE: Final = 2
TSBITS: Final = 6
TSMASK: Final = (1 << TSBITS) - 1
TS_OPT_WSCALE_MASK: Final = 0xF
TS_OPT_SACK: Final = 1 << 4


def _hash(net: TcpNet, key: bytes, seq: int, count: int) -> int:
    data = key + seq.to_bytes(4, "big") + (count & MASK).to_bytes(4, "big")
    return net.siphash(data, net.syncookie_secret) & 0xFFFFFF


def cookie_init_sequence(net: TcpNet, key: bytes, seq: int, mss: int) -> int:
    """The first number for a SYN `seq`, with the largest MSS of the table that fits."""
    index = max([i for i, m in enumerate(MSSTAB) if m <= mss], default=0)
    count = net.now // COOKIE_PERIOD
    return (count & 0xFF) << 24 | (_hash(net, key, seq, count) + index) & 0xFFFFFF


def cookie_init_timestamp(net: TcpNet, req: TcpRequestSock) -> int:
    """The offset that makes the SYN-ACK's timestamp end in the options' bits."""
    options = req.snd_wscale if req.wscale_ok else TS_OPT_WSCALE_MASK
    if req.sack_ok:
        options |= TS_OPT_SACK
    now = net.now // 1_000_000
    ts = (now + req.ts_off) & MASK
    stamped = ts & ~TSMASK | options
    if stamped > ts:
        stamped -= 1 << TSBITS
    return (stamped - now) & MASK


def cookie_v4_check(net: TcpNet, key: bytes, th: TcpHdr) -> int:
    """The MSS encoded in an ACK's number; 0 where it is no cookie of ours."""
    cookie = (th.ack_seq - 1) & MASK
    seq = (th.seq - 1) & MASK
    now = net.now // COOKIE_PERIOD
    for count in range(now, now - MAX_SYNCOOKIE_AGE, -1):
        if count & 0xFF == cookie >> 24:
            index = (cookie - _hash(net, key, seq, count)) & 0xFFFFFF
            return MSSTAB[index] if index < len(MSSTAB) else 0
    return 0


def cookie_timestamp_decode(net: TcpNet, req: TcpRequestSock, opt: TcpOptions) -> bool:
    """Read the options back from the echoed timestamp; False where we no longer offer them."""
    if not opt.saw_tstamp:
        return True
    if not net.sysctl["net.ipv4.tcp_timestamps"]:
        return False
    req.tstamp_ok = True
    req.ts_recent = opt.tsval
    req.sack_ok = bool(opt.tsecr & TS_OPT_SACK)
    if req.sack_ok and not net.sysctl["net.ipv4.tcp_sack"]:
        return False
    wscale = opt.tsecr & TS_OPT_WSCALE_MASK
    if wscale != TS_OPT_WSCALE_MASK:
        req.wscale_ok = True
        req.snd_wscale = wscale
        return bool(net.sysctl["net.ipv4.tcp_window_scaling"])
    return True
