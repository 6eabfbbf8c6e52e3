# SPDX-License-Identifier: MIT
"""epoll for scripts, made of poll(): level- and edge-triggered, and one-shot.

An edge is seen by what has changed since the last report: events that were not there, bytes that
have come. That is what epoll(7) promises; the kernel reports a few edges more.
"""

import errno
from dataclasses import dataclass, field
from typing import Final

from skbus.packetdrill.backend import Backend, Pending, Reply

EPOLL_CTL_ADD: Final = 1
EPOLL_CTL_DEL: Final = 2
EPOLL_CTL_MOD: Final = 3
EPOLLIN: Final = 1
EPOLLOUT: Final = 4
EPOLLERR: Final = 8
EPOLLHUP: Final = 16
EPOLLRDHUP: Final = 0x2000
EPOLLET: Final = 1 << 31
EPOLLONESHOT: Final = 1 << 30
SIOCINQ: Final = 0x541B
_POLL_EVENTS: Final = 0xFFFF
PATIENCE: Final = 1_000_000_000
"""ns for a call that does not block"""
_FIRST_FD: Final = 1 << 20
"""Descriptors of ours, far above the stack's."""


@dataclass(slots=True)
class Watch:
    """One watched socket. reported: the events of the last report; inq: bytes waiting then."""

    events: int
    data: int
    reported: int = 0
    inq: int = -1


@dataclass(slots=True)
class Epoll:
    """One epoll descriptor."""

    watches: dict[int, Watch] = field(default_factory=dict)


class EpollWait:
    """An epoll_wait() under way; it makes progress whenever it is looked at."""

    def __init__(self, epolls: "Epolls", epoll: Epoll, size: int, timeout: int) -> None:
        self._epolls = epolls
        self._epoll = epoll
        self._size = size
        backend = epolls.backend
        self._deadline = backend.now() + timeout if timeout >= 0 else None
        self._reply: Reply | None = None
        self.finished = 0
        self._poll: Pending | None = None
        self._look()

    @property
    def done(self) -> bool:
        self._look()
        return self._reply is not None

    @property
    def reply(self) -> Reply:
        assert self._reply is not None
        return self._reply

    def _look(self) -> None:
        if self._reply is not None:
            return
        ready = self._epolls.ready(self._epoll, self._size)
        now = self._epolls.backend.now()
        if ready or (self._deadline is not None and now >= self._deadline):
            self._reply, self.finished = Reply(0, ready), now


class Epolls:
    """All epoll descriptors of a run."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._epolls: dict[int, Epoll] = {}

    def create(self) -> int:
        """`epoll_create`"""
        fd = _FIRST_FD + len(self._epolls)
        self._epolls[fd] = Epoll()
        return fd

    def close(self, fd: int) -> bool:
        """Close one of ours; False if it is none."""
        return self._epolls.pop(fd, None) is not None

    def forget(self, fd: int) -> None:
        """A socket is closed: nobody watches it any more."""
        for epoll in self._epolls.values():
            epoll.watches.pop(fd, None)

    def ctl(self, epfd: int, op: int, fd: int, events: int, data: int) -> int:
        """`epoll_ctl`: its errno."""
        epoll = self._epolls.get(epfd)
        if epoll is None:
            return errno.EINVAL
        known = fd in epoll.watches
        if op == EPOLL_CTL_ADD:
            if known:
                return errno.EEXIST
        elif not known:
            return errno.ENOENT
        if op == EPOLL_CTL_DEL:
            del epoll.watches[fd]
        else:
            epoll.watches[fd] = Watch(events & 0xFFFFFFFF, data)
        return 0

    def wait(self, epfd: int, size: int, timeout: int) -> EpollWait:
        """`epoll_wait`"""
        epoll = self._epolls.get(epfd)
        return EpollWait(self, epoll if epoll is not None else Epoll(), size, timeout)

    def ready(self, epoll: Epoll, size: int) -> list[tuple[int, int]]:
        """What there is to report now: (events, data)."""
        out: list[tuple[int, int]] = []
        for fd, watch in epoll.watches.items():
            events = self._events(fd, watch)
            if events and len(out) < size:
                out.append((events, watch.data))
                if watch.events & EPOLLONESHOT:
                    watch.events &= EPOLLET | EPOLLONESHOT
        return out

    def _events(self, fd: int, watch: Watch) -> int:
        wanted = watch.events & _POLL_EVENTS
        if not wanted:
            return 0
        reply = self._now("poll", ((fd, wanted),), 0)
        if reply.errno:
            mask = EPOLLERR
        else:
            mask = int(reply.result[0][1]) if reply.result else 0
        if not watch.events & EPOLLET:
            return mask
        inq = self._now("ioctl", fd, SIOCINQ)
        have = int(inq.result) if not inq.errno else 0
        risen = mask & ~watch.reported
        more = wanted & EPOLLIN and mask & EPOLLIN and have > watch.inq
        watch.inq = have
        watch.reported = mask
        return mask if risen or more else 0

    def _now(self, name: str, *args: object) -> Reply:
        pending = self.backend.call(name, *args)
        self.backend.wait(self.backend.now() + PATIENCE, pending)
        return pending.reply if pending.done else Reply(errno.EAGAIN)
