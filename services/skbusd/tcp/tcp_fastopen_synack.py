# SPDX-License-Identifier: MIT
"""The SYN-ACK to a client that has tried Fast Open (`tcp_rcv_fastopen_synack` of
`net/ipv4/tcp_input.c`, RFC 7413 4.2.1).

Called by tcp_input when a connection of ours is established. Calls tcp_metrics (to remember the
cookie) and tcp_retransmit (data that the server did not take).
"""

from skbus.inet.headers.tcp import TcpOptions
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_fastopen import TFO_DATA_NOT_ACKED, TFO_SYN_RETRANSMITTED
from skbusd.tcp.tcp_metrics import tcp_fastopen_cache_set
from skbusd.tcp.tcp_recovery import tcp_mark_skb_lost
from skbusd.tcp.tcp_retransmit import tcp_non_congestion_loss_retransmit


def tcp_rcv_fastopen_synack(net: TcpNet, tp: TcpSock, opt: TcpOptions) -> bool:
    """A SYN-ACK after a SYN with Fast Open: remember its cookie (RFC 7413 4.2.1). True: it did not
    acknowledge the data, which goes again and carries the ACK."""
    data = tp.rtx_queue[0] if tp.syn_data and tp.rtx_queue else None
    cookie = opt.fastopen
    try_exp = 0
    syn_drop = False
    if not tp.syn_fastopen:
        cookie = None  # we had not asked
    elif tp.total_retrans:
        syn_drop = cookie is None and data is not None
    elif cookie is None and not tp.syn_data:
        # The server does not know the option; next time, try the other one.
        try_exp = 2 if tp.syn_fastopen_exp else 1
    mss = opt.mss or 536
    exp = opt.fastopen_exp
    tcp_fastopen_cache_set(net, tp.saddr, tp.daddr, mss, cookie, exp, syn_drop, try_exp)
    if data is not None:
        tp.fastopen_client_fail = TFO_SYN_RETRANSMITTED if tp.total_retrans else TFO_DATA_NOT_ACKED
        for seg in tp.rtx_queue:
            tcp_mark_skb_lost(net, tp, seg)
        tcp_non_congestion_loss_retransmit(net, tp)
        net.mib["TcpExtTCPFastOpenActiveFail"] += 1
        return True
    tp.syn_data_acked = tp.syn_data
    if tp.syn_data_acked:
        net.mib["TcpExtTCPFastOpenActive"] += 1
        tp.delivered -= tp.delivered > 1  # SYN and data were one packet
    return False
