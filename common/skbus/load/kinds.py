# SPDX-License-Identifier: MIT
"""What errors of requests are called, in reports and in `errors.KIND`.

`skbus.load.client` makes them; a protocol of a scenario's own may have others.
"""

import errno
import re
from typing import Final

KINDS: Final = (
    "refused", "reset", "timeout", "unreachable", "eof", "corrupt", "unfinished", "unstarted",
    "no HTTP", "no Content-Length", "several Content-Lengths", "more than Content-Length",
    "bad chunk", "chunks in chunks", "more than its chunks", "HTTP 503",
)  # fmt: skip
"""Those of the built-in protocols; besides these an errno's name, or an exception's."""

_OTHERS: Final = re.compile(
    r"HTTP [1-5][0-9][0-9]|errno -?[0-9]+|[A-Za-z]+(?:Error|Exception)|gaierror"
)


def is_kind(text: str) -> bool:
    """Whether a built-in protocol can fail so."""
    return text in KINDS or text in errno.errorcode.values() or bool(_OTHERS.fullmatch(text))
