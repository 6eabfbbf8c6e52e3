# SPDX-License-Identifier: MIT
"""The one exception that arbitrary bytes can raise in a parser of `skbus.inet.headers`."""

from skbus.core.dropreason import SkbDropReason


class HeaderError(ValueError):
    """Bytes that are not the expected header.

    drop_reason: for `Net.kfree_skb`. pointer: for an ICMP parameter problem, the byte at fault,
    counted from the beginning of the IP header; -1 if none.
    """

    def __init__(self, reason: str, drop_reason: SkbDropReason, pointer: int = -1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.drop_reason = drop_reason
        self.pointer = pointer
