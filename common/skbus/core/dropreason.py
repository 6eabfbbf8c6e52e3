# SPDX-License-Identifier: MIT
"""Why an skb was dropped: the names of Linux's `enum skb_drop_reason`
(`include/net/dropreason-core.h`), and a few of our own for faults of a split stack alone.

A reason is a plain string whose type mypy checks at each call. A function that judges a packet
returns one of three types, and in all of them a value says the same about the skb:

- `SKB_NOT_DROPPED_YET` (""): nothing is wrong. The caller still has the skb and goes on.
- `SKB_CONSUMED`: the function has taken the skb. The caller must not touch it again.
- any other: a reason. The caller still has the skb, and must drop it for that reason.
"""

from typing import Final, Literal, get_args

SkbDropReason = Literal[
    # Linux's
    "NOT_SPECIFIED", "NO_SOCKET", "PKT_TOO_SMALL", "TCP_CSUM", "SOCKET_FILTER", "UDP_CSUM",
    "NETFILTER_DROP", "OTHERHOST", "IP_CSUM", "IP_INHDR", "IP_RPFILTER",
    "UNICAST_IN_L2_MULTICAST", "XFRM_POLICY", "IP_NOPROTO", "SOCKET_RCVBUFF", "PROTO_MEM",
    "TCP_AUTH_HDR", "SOCKET_BACKLOG", "TCP_FLAGS", "TCP_ZEROWINDOW", "TCP_OLD_DATA",
    "TCP_OVERWINDOW", "TCP_OFOMERGE", "TCP_RFC7323_PAWS", "TCP_RFC7323_PAWS_ACK",
    "TCP_OLD_SEQUENCE", "TCP_INVALID_SEQUENCE", "TCP_INVALID_END_SEQUENCE",
    "TCP_INVALID_ACK_SEQUENCE", "TCP_RESET", "TCP_INVALID_SYN", "TCP_CLOSE", "TCP_FASTOPEN",
    "TCP_OLD_ACK", "TCP_TOO_OLD_ACK", "TCP_ACK_UNSENT_DATA", "TCP_OFO_QUEUE_PRUNE",
    "TCP_OFO_DROP", "IP_OUTNOROUTES", "BPF_CGROUP_EGRESS", "IPV6DISABLED", "NEIGH_CREATEFAIL",
    "NEIGH_FAILED", "NEIGH_QUEUEFULL", "NEIGH_DEAD", "NEIGH_HH_FILLFAIL", "TC_EGRESS",
    "QDISC_DROP", "CPU_BACKLOG", "XDP", "TC_INGRESS", "UNHANDLED_PROTO", "SKB_CSUM",
    "SKB_GSO_SEG", "SKB_UCOPY_FAULT", "DEV_HDR", "DEV_READY", "FULL_RING", "NOMEM", "HDR_TRUNC",
    "TAP_FILTER", "TAP_TXFILTER", "ICMP_CSUM", "INVALID_PROTO", "IP_INADDRERRORS",
    "IP_INNOROUTES", "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_LOCALNET", "IP_INVALID_DEST",
    "PKT_TOO_BIG", "DUP_FRAG", "FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR", "TCP_MINTTL",
    "IPV6_BAD_EXTHDR", "ARP_PVLAN_DISABLE",
    # ours
    "SKBUS_PIPE_FULL",  # the ZeroMQ pipe to the next process is full
    "SKBUS_STALE_EPOCH",  # sent by a process that has been restarted since
    "SKBUS_STALE_PLACE",  # its payload in the pool was given back meanwhile
    "SKBUS_BAD_MESSAGE",  # the item does not fit the ABI's table
    "SKBUS_NO_PEER",  # the process that should get it is not there
    "SKBUS_IMPAIRED",  # lost on purpose, by the link's impairment
]  # fmt: skip
"""The reasons that `kfree_skb` takes."""

SKB_NOT_DROPPED_YET: Final = ""
SKB_CONSUMED: Final = "CONSUMED"

Checked = SkbDropReason | Literal[""]
"""Returned by a function that looks at an skb and leaves it to its caller."""
Taken = SkbDropReason | Literal["CONSUMED"]
"""Returned by a function that ends the skb's way: taken, or to be dropped by the caller."""
Verdict = SkbDropReason | Literal["", "CONSUMED"]
"""Returned by a function that may take the skb, or leave it and let the caller go on."""

REASONS: Final = frozenset("SKB_DROP_REASON_" + name for name in get_args(SkbDropReason))
"""Every reason under its whole name, as in counters and traces."""
