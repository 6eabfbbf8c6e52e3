# SPDX-License-Identifier: MIT
"""Stacks in other languages, for `make bench-peers`: gVisor's netstack (Go) and lwIP (C)."""

from peers.stacks import Gvisor, Lwip

__all__ = ["Gvisor", "Lwip"]
