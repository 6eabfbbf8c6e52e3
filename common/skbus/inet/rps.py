# SPDX-License-Identifier: MIT
"""Which shard of tcp a flow belongs to (Linux: receive packet steering, `get_rps_cpu` of
`net/core/dev.c`; `___skb_get_hash` of `net/core/flow_dissector.c`).

With `tcp_shards = N` (`skbus.stack.config`) there are N processes tcp.0 to tcp.N-1. Each connection
is in one of them, chosen by a keyed hash of its four numbers. ip steers incoming segments by the
hash. For a connection of its own, tcp takes only a local port that brings the answers back to
itself. Both must agree, so the key is given to all processes of a stack.

The key is secret: a peer that knew it could send all flows to one shard.
"""

from typing import Final

from siphash24 import siphash24

SHARD_BITS: Final = 6
MAX_SHARDS: Final = 1 << SHARD_BITS
RSS_KEY_LEN: Final = 16


def tcp_processes(shards: int) -> tuple[str, ...]:
    """The names of the tcp processes: "tcp", or "tcp.0", "tcp.1", ..."""
    return ("tcp",) if shards == 1 else tuple(f"tcp.{i}" for i in range(shards))


def tcp_shard(process: str) -> int:
    """The number of a tcp process, by its name."""
    return int(process.partition(".")[2] or 0)


def flow_hash(flow: bytes, key: bytes) -> int:
    """32 bits of a flow, which is 12 bytes: remote address, local address, remote port, local port,
    in an incoming segment's order (as in `inet_ehashfn`)."""
    hash_: int = siphash24(flow, key=key).intdigest()
    return hash_ & 0xFFFFFFFF


def reciprocal_scale(hash_: int, shards: int) -> int:
    """A hash of 32 bits as one of 0..shards-1."""
    return hash_ * shards >> 32
