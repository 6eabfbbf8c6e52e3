# SPDX-License-Identifier: MIT
"""Where the fields of a plain frame lie: Ethernet, IPv4 without options, TCP or UDP.

GRO compares headers in place, and most frames never become an skb. So it reads fields at fixed
offsets instead of parsing. A field is `frame[IP_TTL]`, or from its offset to the next one's:
`frame[IP_SADDR:IP_DADDR]`, which is `frame[SADDR]`. A function must know that a frame is plain
(`frame[IP_VERSION_IHL] == PLAIN_IP`) before it reads fields behind the IP header.

Used by `gro`, `tcp_gro`, `udp_gro`, `rx_buffer`, `eth`, `gso`, `tso` and `synlimit`.
"""

from typing import Final

# struct ethhdr
ETH_DEST: Final = 0
ETH_PROTO: Final = 12
IP: Final = 14
"""The IP header, where there is no tag (ETH_HLEN)."""

# struct iphdr
IP_VERSION_IHL: Final = 14
IP_TOS: Final = 15
IP_TOT_LEN: Final = 16
IP_ID: Final = 18
IP_FRAG_OFF: Final = 20
IP_TTL: Final = 22
IP_PROTOCOL: Final = 23
IP_CHECK: Final = 24
IP_SADDR: Final = 26
IP_DADDR: Final = 30
L4: Final = 34
"""The header behind an IP header without options."""
PORTS_END: Final = 38
"""Addresses and ports, `frame[FLOW_KEY]`, name a flow."""

# struct tcphdr
TCP_SEQ: Final = 38
TCP_ACK_SEQ: Final = 42
TCP_DOFF: Final = 46
"""The upper half of the byte; the lowest bit is a flag (AE)."""
TCP_FLAGS: Final = 47
TCP_WINDOW: Final = 48
TCP_CHECK: Final = 50
TCP_URG_PTR: Final = 52
TCP_OPTIONS: Final = 54
# The option that most segments have, and no other: NOP NOP TIMESTAMP (RFC 7323 appendix A).
TCP_TSVAL: Final = 58
TCP_TSECR: Final = 62
TCP_TSTAMP_END: Final = 66
"""The length of the headers with that option."""

# struct udphdr
UDP_LEN: Final = 38
UDP_CHECK: Final = 40
UDP_DATA: Final = 42

# within a TCP header, wherever it begins
TH_SEQ: Final = 4
TH_ACK_SEQ: Final = 8
TH_DOFF: Final = 12
TH_FLAGS: Final = 13
TH_WINDOW: Final = 14
TH_CHECK: Final = 16
TH_URG_PTR: Final = 18

# values
PLAIN_IP: Final = 0x45
"""IP_VERSION_IHL: version 4, five words, so no options."""
TYPE_PLAIN_IP: Final = b"\x08\x00\x45"
"""`frame[TYPE_AND_IHL]` of a plain frame: ETH_P_IP and PLAIN_IP."""
TYPE_IP: Final = b"\x08\x00"
"""`frame[ETH_TYPE]`: ETH_P_IP"""
FRAGMENT_BITS: Final = 0x3F
"""Of the byte at IP_FRAG_OFF: MF and the offset's upper bits. A fragment has one of these set, or
the byte behind is not 0."""
