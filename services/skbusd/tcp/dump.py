# SPDX-License-Identifier: MIT
"""Writing a TcpSock down, and reading it again: for a tcp process that is born later.

What is derived (timers, the order of transmission, queues' indices) is rebuilt; `TcpCore.adopt`
puts the socket back into the tables.
"""

from typing import Any, Final

from skbus.core.compiled import field_names
from skbus.core.skbuff import SkBuff
from skbusd.tcp.sock import OfoSkb, TcpAccEcn, TcpSeg, TcpSock
from skbusd.tcp.tcp_lost import tcp_rebuild_rtx_indices

_DERIVED: Final = frozenset(
    {
        "__dict__",
        "tsorted",
        "lost_queue",
        "sacked_ranges",
        "write_timer",
        "delack_timer",
        "sk_timer",
        "pacing_timer",
        "compressed_ack_timer",
        "pseudo",
        "xmit_cb",
        "fastopen_rsk",
        "fastopen_req",
        "sk_lock",
        "slice_time",
        "slice_bytes",
    }
)
_FIELDS: Final = tuple(sorted({*field_names(TcpSock)} - _DERIVED))
_SEG_LINKS: Final = frozenset({"tsorted_on", "tsorted_prev", "tsorted_next"})
_SEG_FIELDS: Final = tuple(sorted({*field_names(TcpSeg)} - _SEG_LINKS))
_OFO_SKB: Final = ("id", "head", "data", "frags", "lent", "skb_iif", "gso_size", "gso_segs")

DUMP_VERSION: Final = 5


class BadDumpError(ValueError):
    """A dump that is not one of this version; the text says why."""


def tcp_sock_dump(tp: TcpSock) -> tuple[object, ...]:
    """Write a socket down: nested tuples of ints, bytes, strings and None, for msgpack."""
    order = {id(seg): i for i, seg in enumerate(tp.tsorted)}
    out: list[object] = [DUMP_VERSION]
    for name in _FIELDS:
        value = getattr(tp, name)
        if name == "write_queue" or name == "rtx_queue":
            value = tuple(
                (*(getattr(seg, f) for f in _SEG_FIELDS), order.get(id(seg), -1)) for seg in value
            )
        elif name == "ofo":
            value = tuple(
                (o.seq, o.end_seq, o.fin, *(getattr(o.skb, f) for f in _OFO_SKB)) for o in value
            )
        elif (name == "accept_queue" and value is not None) or name == "ca_priv":
            value = tuple(value)
        elif name == "accecn" and value is not None:
            value = value.dump()
        out.append(value)
    timers = (tp.write_timer, tp.delack_timer, tp.sk_timer)
    out += [timer.expires if timer is not None else -1 for timer in timers]
    return tuple(out)


def _tuples(value: Any) -> Any:
    """msgpack gives lists back: make them tuples, which is what the fields hold."""
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def tcp_sock_load(dump: tuple[object, ...]) -> tuple[TcpSock, tuple[int, int, int]]:
    """The socket of a dump, and the deadlines of its write, delayed-ACK and keepalive timers.

    `TcpNet.adopt` arms them. BadDumpError where the dump is not ours.
    """
    if len(dump) != len(_FIELDS) + 4 or dump[0] != DUMP_VERSION:
        raise BadDumpError(
            f"a dump of {len(dump)} fields, version {dump[0] if dump else None}; "
            f"wanted {len(_FIELDS) + 4} fields, version {DUMP_VERSION}"
        )
    tp = TcpSock(0)
    ordered: list[tuple[int, TcpSeg]] = []
    for name, raw in zip(_FIELDS, dump[1:], strict=False):
        value: Any = _tuples(raw)
        if name == "write_queue" or name == "rtx_queue":
            segs = []
            for item in value:
                seg = TcpSeg(0, 0, 0, ())
                for f, v in zip(_SEG_FIELDS, item, strict=False):
                    setattr(seg, f, v)
                segs.append(seg)
                if item[-1] >= 0:
                    ordered.append((item[-1], seg))
            value = segs
        elif name == "ofo":
            queue = []
            for seq, end_seq, fin, *skb_fields in value:
                skb = SkBuff(skb_fields[1], skb_fields[3])
                for f, v in zip(_OFO_SKB, skb_fields, strict=True):
                    setattr(skb, f, v)
                queue.append(OfoSkb(seq, end_seq, fin, skb))
            value = queue
        elif name == "accept_queue" and value is not None:
            value = dict.fromkeys(value)
        elif name == "ca_priv":
            value = list(value)
        elif name == "accecn" and value is not None:
            value = TcpAccEcn.load(value)
        if value != getattr(tp, name):
            setattr(tp, name, value)
    for _, seg in sorted(ordered, key=lambda pair: pair[0]):
        tp.tsorted.append(seg)
    tcp_rebuild_rtx_indices(tp)
    write, delack, sk_timer = (int(v) for v in dump[-3:] if isinstance(v, int))
    return tp, (write, delack, sk_timer)
