# SPDX-License-Identifier: MIT
"""A message's parts besides its bytes: an address, and control messages (`struct msghdr`;
`put_cmsg` of `net/core/scm.c`).
"""

from typing import Final

from skbusd.socket import uapi

SockAddr = tuple[int, int, bytes]
"""(family, port, address)"""
Cmsg = tuple[int, int, bytes]
"""A control message: (level, type, data)."""

_CMSGHDR: Final = 16
"""sizeof(struct cmsghdr)"""


def put_cmsg(msg: list[Cmsg], room: int, level: int, kind: int, data: bytes) -> int:
    """`put_cmsg`: add a control message where there is room for it, or for its beginning.

    Returns how much room is left; -1 where it was cut, which MSG_CTRUNC tells.
    """
    if room < _CMSGHDR:
        return -1
    whole = room >= _CMSGHDR + len(data)
    msg.append((level, kind, data if whole else data[: room - _CMSGHDR]))
    return max(room - (_CMSGHDR + len(data) + 7 & ~7), 0) if whole else -1


def scm_pack(cmsgs: list[Cmsg], controllen: int) -> tuple[tuple[Cmsg, ...], int]:
    """The control messages that the application has room for, and MSG_CTRUNC or 0."""
    out: list[Cmsg] = []
    flags = 0
    room = controllen
    for level, kind, data in cmsgs:
        left = put_cmsg(out, room, level, kind, data)
        if left < 0:
            flags = uapi.MSG_CTRUNC
            left = 0
        room = left
    return tuple(out), flags
