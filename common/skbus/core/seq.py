# SPDX-License-Identifier: MIT
"""Sequence numbers: arithmetic modulo 2^32 (RFC 9293 3.4), as in Linux's `include/net/tcp.h`.

A sequence number is an int in 0..2^32-1. Code that stores a sum or a distance masks it with MASK;
`seq_add` adds and masks. Every comparison goes through the functions here, which hold while the two
numbers are less than 2^31 apart. Their arguments need no mask: `before(tp.rcv_wup + tp.rcv_wnd,
seq)` is right. RFC 7323's timestamps are compared by the same functions.

Only this module names half of the space (2^31); a test checks that.
"""

from typing import Final

MASK: Final = 0xFFFFFFFF
HALF: Final = 0x80000000


def seq_add(seq: int, n: int) -> int:
    """`seq + n` modulo 2^32; n may be negative."""
    return (seq + n) & MASK


def seq_sub(a: int, b: int) -> int:
    """How far `a` lies ahead of `b`, in bytes: -2^31 .. 2^31-1."""
    return ((a - b + HALF) & MASK) - HALF


def seq_ahead(a: int, b: int) -> int:
    """How far `a` lies ahead of `b`, in bytes; 0 where it does not."""
    ahead = (a - b) & MASK
    return ahead if ahead < HALF else 0


def before(a: int, b: int) -> bool:
    """`a` comes before `b` (Linux's `before`)."""
    return ((a - b) & MASK) >= HALF


def after(a: int, b: int) -> bool:
    """`a` comes after `b` (Linux's `after`)."""
    return ((b - a) & MASK) >= HALF


def between(seq: int, low: int, high: int) -> bool:
    """low <= seq <= high (Linux's `between`)."""
    return ((high - low) & MASK) >= ((seq - low) & MASK)
