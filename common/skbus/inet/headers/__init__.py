# SPDX-License-Identifier: MIT
"""Wire headers: bytes to values and back, one file a header, no state and no policy.

Every file has the same skeleton: a NamedTuple with Linux's field names, `parse(buf, offset)`,
which raises `HeaderError` and nothing else whatever the bytes, and `build(...)`.
"""

from skbus.inet.headers.error import HeaderError

Buffer = bytes | bytearray | memoryview

__all__ = ["Buffer", "HeaderError"]
