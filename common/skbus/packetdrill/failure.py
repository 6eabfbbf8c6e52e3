# SPDX-License-Identifier: MIT
"""Mismatch: the stack did not do what the script says."""

from collections.abc import Sequence


class Mismatch(Exception):
    """What differs in one line, and in more where there is more to say."""

    def __init__(self, reason: str, details: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = list(details)
