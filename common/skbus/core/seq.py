# SPDX-License-Identifier: MIT
"""Sequence numbers: arithmetic modulo 2^32 (RFC 9293 3.4), as in Linux's `include/net/tcp.h`.

A sequence number is an int in 0..2^32-1. Every sum must be masked by `seq_add`; every
comparison goes through `before`, `after` or `between`, which hold while the two numbers are
less than 2^31 apart.
"""

MASK = 0xFFFFFFFF
HALF = 0x80000000


def seq_add(seq: int, n: int) -> int:
    """`seq + n` modulo 2^32; n may be negative."""
    return (seq + n) & MASK


def seq_sub(a: int, b: int) -> int:
    """How far `a` lies ahead of `b`, in bytes: -2^31 .. 2^31-1."""
    return ((a - b + HALF) & MASK) - HALF


def before(a: int, b: int) -> bool:
    """`a` comes before `b` (Linux's `before`)."""
    return ((a - b) & MASK) >= HALF


def after(a: int, b: int) -> bool:
    """`a` comes after `b` (Linux's `after`)."""
    return ((b - a) & MASK) >= HALF


def between(seq: int, low: int, high: int) -> bool:
    """low <= seq <= high (Linux's `between`)."""
    return ((high - low) & MASK) >= ((seq - low) & MASK)
