# SPDX-License-Identifier: MIT
"""The socket layer's shell part: system calls, life connections and poll descriptors.

A `Source` of the generic shell (`skbus.bus.service`). It owns the ROUTER to which all applications
send their calls. It also owns a Unix socket, to which each application's process holds one
connection for its life:

    client -> 16 bytes: its id                      <- SYS_ABI, errno             (=II)
    client -> fd, token (=iI), with two descriptors <- errno, token               (=II)
    client -> -1, token (=iI)                       <- errno, token, with the post pipe

The kernel closes that connection when the process ends, however it ends. A client's posts
(`skbus.core.syscall.POST`) are read before any later call of that client, and before its end is
noted. The two descriptors are the ends A and B of a socketpair of datagrams. The application polls
A; we hold both, and before we answer any call we make A readable or writable as our socket is. So A
shows the true state when a call returns, and nothing else. A write to A gets EPIPE; a read gets an
empty datagram, which read(2) tells as the end of the file.
"""

import contextlib
import errno
import os
import resource
import select
import socket
import struct
from typing import Final, cast

from skbus.bus.linux import owns_our_namespace
from skbus.bus.loop import Part
from skbus.bus.pipe import Listener
from skbus.bus.pooldir import PoolDir
from skbus.bus.rundir import RunDir
from skbus.core.syscall import CLIENT_ID_LEN, MAX_DATA, MAX_META, POST_PIPE, SYS_ABI, SysCallError
from skbusd.socket import uapi
from skbusd.socket.core import SocketCore
from skbusd.socket.files import NOBODY, Cred
from skbusd.socket.netns import SocketNet
from skbusd.socket.socket import Socket

_WELCOME: Final = struct.Struct("=II")
_POLL_OPEN: Final = struct.Struct("=iI")
_POST_OPEN: Final = -1
_UCRED: Final = struct.Struct("=iII")
_SO_PEERGROUPS: Final = 59
_MAX_GROUPS: Final = 256
"""Groups of a process that `getsockopt` takes in."""
_CAP_NET_ADMIN: Final = 12
_CAP_NET_RAW: Final = 13
_REPLY_HWM: Final = 100_000
"""Replies that an application may leave unread before we take it for broken."""
_FILL: Final = bytes(1600)
"""A datagram of more than a quarter of the smallest send buffer, and far less of a big one. A Unix
socket is writable while its unread datagrams take no more than a quarter (unix_writable)."""
_BIG_SNDBUF: Final = 65536
_SMALL_SNDBUF: Final = 1
"""The kernel makes it 4608 (SOCK_MIN_SNDBUF)."""


class PollDescriptor:
    """Our two ends of what an application polls; see the module's text.

    A is readable while an empty datagram from B lies in it. One from A lies in B for ever, and A is
    writable while its send buffer is big next to that. B receives no more, so a write to A gets
    EPIPE. `nowhere` is the address of a socket that B may be connected to.
    """

    __slots__ = ("a", "b", "err", "hup", "nowhere", "rdhup", "readable", "writable")

    def __init__(self, a: int, b: int, nowhere: bytes) -> None:
        self.a = socket.socket(fileno=a)
        self.b = socket.socket(fileno=b)
        self.nowhere = nowhere
        self.readable = False
        self.writable = True
        self.err = False
        self.hup = False
        self.rdhup = False
        try:
            self._set_sndbuf(_BIG_SNDBUF)
            self.a.send(_FILL, socket.MSG_DONTWAIT)
            self.b.shutdown(socket.SHUT_RD)
        except OSError as e:
            self.a.close()
            self.b.close()
            raise SysCallError(errno.EINVAL, f"no pair of sockets: {e}") from e

    def show(self, mask: int, over: bool, rdhup: bool) -> None:
        """Make the descriptor show these events. over: no event will ever follow; rdhup: no data
        will ever come. Neither can be taken back."""
        if self.hup:
            if self.err and not mask & uapi.POLLERR:
                self.err = False
                self.a.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # which clears it
            return
        try:
            if over:
                self.hup = True
                self._set_sndbuf(_BIG_SNDBUF)
                self.a.shutdown(socket.SHUT_RDWR)
                if mask & uapi.POLLERR:
                    self._show_error()
                return
            if rdhup and not self.rdhup:
                self.rdhup = self.readable = True  # the end of the stream is to be read
                self.a.shutdown(socket.SHUT_RD)
            readable = self.rdhup or bool(mask & (uapi.POLLIN | uapi.POLLERR | uapi.POLLHUP))
            writable = bool(mask & (uapi.POLLOUT | uapi.POLLERR | uapi.POLLHUP))
            if readable != self.readable:
                self.readable = readable
                if readable:
                    self.b.send(b"", socket.MSG_DONTWAIT)
                else:
                    self.a.recv(16, socket.MSG_DONTWAIT)
            if writable != self.writable:
                self.writable = writable
                self._set_sndbuf(_BIG_SNDBUF if writable else _SMALL_SNDBUF)
        except OSError:
            self.hup = True  # the application has done something odd with it

    def _set_sndbuf(self, size: int) -> None:
        """Set A's send buffer, which wakes the waiters for A if it is writable now."""
        self.a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def _show_error(self) -> None:
        """Give A ECONNRESET: B has unread data and connects elsewhere (unix_dgram_disconnected)."""
        self.err = True
        self.b.connect(self.nowhere)

    def close(self) -> None:
        """Give up our ends; the application's shows a hang-up."""
        with contextlib.suppress(OSError):
            self.a.shutdown(socket.SHUT_RDWR)
            self._set_sndbuf(_BIG_SNDBUF)
        self.a.close()
        self.b.close()


class LifeConnection:
    """One application's process."""

    __slots__ = ("buffer", "fds", "id", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.id = b""
        self.buffer = b""
        self.fds: list[int] = []

    def close(self) -> None:
        """Close the connection, and descriptors that were sent and not used."""
        self.sock.close()
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


class SyscallSource:
    """Applications' requests, for the loop of `skbus.bus.service.Service`.

    part: of the loop's epoll, which takes one system call less a message than an epoll descriptor
    of our own.
    """

    def __init__(self, core: SocketCore, rundir: RunDir, part: Part | None = None) -> None:
        self.core = core
        self.net = core.net
        self._pool_dir = PoolDir(rundir.pool_dir)
        _raise_nofile()
        self._listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        rundir.life.unlink(missing_ok=True)
        self._listener.bind(str(rundir.life))
        rundir.life.chmod(0o600)
        self._listener.listen(4096)
        self._part = part
        self._epoll = select.epoll() if part is None else cast("select.epoll", part)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._listening = True
        self._router = Listener(
            rundir.syscall_endpoint, b"ROUTER", self._epoll, MAX_DATA + MAX_META, named=True
        )
        self._lives: dict[int, LifeConnection] = {}
        self._by_id: dict[bytes, LifeConnection] = {}
        self._polls: dict[Socket, list[PollDescriptor]] = {}
        self._nowhere = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._nowhere.bind("")  # a name that the kernel chooses
        self._nowhere.shutdown(socket.SHUT_RD)
        self._post_ids: dict[int, bytes] = {}
        self._post_fds: dict[bytes, int] = {}
        """Post pipes, by client."""
        self._post_paused: set[int] = set()
        """Pipes of clients with posts that wait for room."""

    # ---- skbus.bus.service.Source ------------------------------------------------------------

    def filenos(self) -> list[int]:
        return [self._epoll.fileno()] if self._part is None else []

    def drain(self, budget: int) -> int:
        n = 0
        more = False
        router = self._router
        request = self.core.request
        pipes = self._post_fds
        part = self._part
        if part is None:
            ready = self._epoll.poll(0, budget)
        else:
            ready, part.ready = part.ready, []
        for fd, mask in ready:
            if not router.handles(fd):
                n += 1
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._post_ids:
                    self._read_posts(fd, self._post_ids[fd], False)
                else:
                    self._life_readable(fd)
                continue
            peer, messages, rest = router.event(fd, mask)
            more |= rest
            if peer is None or not messages:
                continue
            identity = peer.identity
            if pipes and (pipe := pipes.get(identity[:CLIENT_ID_LEN])) is not None:
                self._read_posts(pipe, identity[:CLIENT_ID_LEN], True)
            for frames in messages:
                n += 1
                if len(frames) == 1:
                    request(identity, frames[0], b"")
                elif len(frames) == 2:
                    request(identity, frames[0], frames[1])
                else:
                    request(identity, b"", b"")
        return max(n, budget) if more else min(n, budget - 1)

    def flush(self) -> None:
        net = self.net
        if net.polls.dirty or net.polls.closed:
            self._show_polls()
        if net.replies:
            replies, net.replies = net.replies, []
            send = self._router.send
            for identity, meta, data in replies:
                if not send(identity, (meta, data) if data else (meta,), _REPLY_HWM):
                    self._end_client(identity[:CLIENT_ID_LEN])
        if net.posts.resumed:
            self._resume_posts()
        if net.regions.gone:
            numbers, net.regions.gone = net.regions.gone, []
            for number in numbers:
                remove_region(self._pool_dir, self.net, number)

    def pending(self) -> bool:
        return False

    def close(self) -> None:
        for life in self._lives.values():
            life.close()
        for fd in self._post_ids:
            os.close(fd)
        for descriptors in self._polls.values():
            for descriptor in descriptors:
                descriptor.close()
        self._nowhere.close()
        self._listener.close()
        self._router.close()
        if self._part is None:
            self._epoll.close()

    # ---- life connections ----------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in (errno.EMFILE, errno.ENFILE):
                    # Wait until a client goes; the backlog holds new ones meanwhile.
                    self._epoll.unregister(self._listener.fileno())
                    self._listening = False
                    self.net.warning("life_accept", error=e.strerror, clients=len(self._lives))
                return
            sock.setblocking(False)
            self._lives[sock.fileno()] = LifeConnection(sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _life_readable(self, fd: int) -> None:
        life = self._lives.get(fd)
        if life is None:
            return
        try:
            data, fds, _, _ = socket.recv_fds(life.sock, 64, 4)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        life.fds += fds
        if not data:
            self._end_life(fd, life)
            return
        life.buffer += data
        if not life.id and len(life.buffer) >= CLIENT_ID_LEN:
            life.id, life.buffer = life.buffer[:CLIENT_ID_LEN], life.buffer[CLIENT_ID_LEN:]
            known = self.core.client_up(life.id, peer_cred(life.sock))
            if known:
                self._by_id[life.id] = life
            self._answer(fd, life, _WELCOME.pack(SYS_ABI, 0 if known else errno.EEXIST))
            if not known:
                life.id = b""
                self._end_life(fd, life)
                return
        while life.id and len(life.buffer) >= _POLL_OPEN.size:
            number, token = _POLL_OPEN.unpack_from(life.buffer)
            life.buffer = life.buffer[_POLL_OPEN.size :]
            if number == _POST_OPEN and not life.fds:
                self._post_open(fd, life, token)
                continue
            err = self._poll_open(life, number)
            self._answer(fd, life, _WELCOME.pack(err, token))

    def _answer(self, fd: int, life: LifeConnection, data: bytes) -> None:
        try:
            life.sock.send(data)
        except OSError:
            self._end_life(fd, life)

    def _end_life(self, fd: int, life: LifeConnection) -> None:
        if self._lives.pop(fd, None) is None:
            return
        self._epoll.unregister(fd)
        life.close()
        if life.id:
            self._by_id.pop(life.id, None)
            self._post_close(life.id)
            self._last_requests(life.id)
            self.core.client_gone(life.id)
        if not self._listening:
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)
            self._listening = True

    def _last_requests(self, id: bytes) -> None:
        """The client has ended: what it posted before that still counts."""
        for identity, fd in self._router.identities():
            if identity.startswith(id):
                more = True
                while more:
                    _, messages, more = self._router.event(fd, select.EPOLLIN)
                    for frames in messages:
                        self.core.request(identity, frames[0], b"".join(frames[1:2]))

    def _end_client(self, id: bytes) -> None:
        life = self._by_id.get(id)
        if life is not None:
            self.net.warning("reply", text="a client does not read its replies: it is cut off")
            self._end_life(life.sock.fileno(), life)

    # ---- post pipes ----------------------------------------------------------------------

    def _post_open(self, fd: int, life: LifeConnection, token: int) -> None:
        """Make a client's post pipe. The client gets the end to write to, and an end to read from,
        so that the pipe never breaks. Our own is another: with this one the client could clear
        O_NONBLOCK."""
        made: list[int] = []
        err = 0
        try:
            if life.id in self._post_fds:
                raise OSError(errno.EEXIST, "one is enough")
            made += os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            made.append(os.open(f"/proc/self/fd/{made[0]}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as e:
            err = e.errno or errno.EIO
        try:
            answer = _WELCOME.pack(err, token)
            if err:
                life.sock.send(answer)
            else:
                socket.send_fds(life.sock, [answer], made[1:])
                self._post_fds[life.id] = made[0]
                self._post_ids[made[0]] = life.id
                self._epoll.register(made.pop(0), select.EPOLLIN)
        except OSError:
            self._end_life(fd, life)
        finally:
            for one in made:
                os.close(one)

    def _read_posts(self, fd: int, id: bytes, force: bool) -> None:
        """Read a post pipe. force: even where the client is stalled."""
        try:
            data = os.read(fd, POST_PIPE)
        except BlockingIOError:
            if not force:
                return
            data = b""
        if data or fd in self._post_paused:
            self._pause_posts(fd, self.core.posts(id, data, force))
        elif not force:  # the end of the file: the client has closed its pipe
            self._post_close(id)

    def _pause_posts(self, fd: int, paused: bool) -> None:
        if paused and fd not in self._post_paused:
            self._post_paused.add(fd)
            self._epoll.unregister(fd)
        elif not paused and fd in self._post_paused:
            self._post_paused.discard(fd)
            self._epoll.register(fd, select.EPOLLIN)

    def _resume_posts(self) -> None:
        """There is room again."""
        ids, self.net.posts.resumed = self.net.posts.resumed, []
        for id in ids:
            fd = self._post_fds.get(id)
            if fd is not None:
                self._pause_posts(fd, False)

    def _post_close(self, id: bytes) -> None:
        """The client has gone: send its posts."""
        fd = self._post_fds.get(id)
        if fd is not None:
            with contextlib.suppress(OSError):
                while data := os.read(fd, POST_PIPE):
                    self.core.posts(id, data, True)
            del self._post_fds[id], self._post_ids[fd]
            self._post_paused.discard(fd)
            os.close(fd)

    # ---- poll descriptors ----------------------------------------------------------------

    def _poll_open(self, life: LifeConnection, number: int) -> int:
        fds, life.fds = life.fds, []
        try:
            if len(fds) != 2 or not all(map(_is_unix_dgram, fds)):
                raise SysCallError(errno.EINVAL)
            sock = self.core.poll_open(life.id, number)
        except SysCallError as e:
            for fd in fds:
                os.close(fd)
            return e.errno
        try:
            descriptor = PollDescriptor(fds[0], fds[1], self._nowhere.getsockname())
        except SysCallError as e:
            return e.errno
        self._polls.setdefault(sock, []).append(descriptor)
        self._show(sock, [descriptor])
        return 0

    def _show(self, sock: Socket, descriptors: list[PollDescriptor]) -> None:
        mask = self.core.poll_mask(sock)
        sk = sock.sk
        settled = (
            sk is not None and sk.sk_type == uapi.SOCK_STREAM and sock.state == uapi.SS_CONNECTED
        )
        over = settled and sk is not None and sk.sk_shutdown == uapi.SHUTDOWN_MASK
        rdhup = settled and bool(mask & uapi.POLLRDHUP)
        for descriptor in descriptors:
            descriptor.show(mask, over, rdhup)

    def _show_polls(self) -> None:
        net = self.net
        dirty, net.polls.dirty = net.polls.dirty, {}
        for sock in dirty:
            descriptors = self._polls.get(sock)
            if descriptors is not None and sock.polled:
                self._show(sock, descriptors)
        closed, net.polls.closed = net.polls.closed, []
        for sock in closed:
            for descriptor in self._polls.pop(sock, ()):
                descriptor.close()


def _is_unix_dgram(fd: int) -> bool:
    """Is a descriptor that was sent to us a Unix datagram socket? Its buffer is then bounded."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False  # no socket at all
    found = (sock.family, sock.type)
    sock.detach()
    return found == (socket.AF_UNIX, socket.SOCK_DGRAM)


def peer_cred(sock: socket.socket) -> Cred:
    """The credentials of the other end. Root has CAP_NET_RAW and CAP_NET_ADMIN, as has the maker of
    our user namespace (a lab's, without root); for others /proc tells."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
    except OSError:
        return NOBODY
    try:
        more = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MAX_GROUPS)
    except OSError:
        more = b""  # more than that, or Linux before 4.13
    groups = struct.unpack(f"={len(more) // 4}I", more)
    caps = _cap_eff(pid)
    all_caps = not uid or owns_our_namespace(pid, uid)
    net_raw = all_caps or bool(caps >> _CAP_NET_RAW & 1)
    return Cred(gid, groups, net_raw, uid, all_caps or bool(caps >> _CAP_NET_ADMIN & 1))


def _cap_eff(pid: int) -> int:
    """The effective capabilities of a process, a bit each."""
    if pid <= 0:
        return 0  # of another pid namespace
    try:
        with open(f"/proc/{pid}/status", "rb") as f:
            for line in f:
                if line.startswith(b"CapEff:"):
                    return int(line.split()[1], 16)
    except (OSError, ValueError, IndexError):
        pass  # it has gone, or /proc is not there
    return 0


def remove_region(pool_dir: PoolDir, net: SocketNet, number: int) -> None:
    """Take a dead client's region away, and free its memory even where others still map it."""
    region = net.pool.regions.pop(number, None)
    pool_dir.unlink(number)
    if region is not None:
        region.punch()
        region.close()


def _raise_nofile() -> None:
    """Allow as many descriptors as the system lets us have: a polled socket takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 20)), hard))
