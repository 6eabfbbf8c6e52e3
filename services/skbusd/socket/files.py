# SPDX-License-Identifier: MIT
"""Descriptor tables: struct files_struct, one for each client process (`fs/file.c`).

A client is an application's process, known by the id that it announced on its life connection. A
descriptor has a meaning only together with the id. When the life connection ends, so does
everything that the client had.
"""

import errno
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from skbus.core.pool import PoolError
from skbus.core.skbuff import Place
from skbus.core.syscall import Request, SysCallError

if TYPE_CHECKING:
    from skbusd.socket.call import Call
    from skbusd.socket.netns import SocketNet
    from skbusd.socket.socket import Socket

MAX_REGIONS: Final = 4
"""Pool regions that a client may allocate in."""
MAX_DEFERRED: Final = 1024
"""Requests of one client that may wait for posts which they follow."""
MAX_CALLS: Final = 131072
"""Calls of one client that may wait at the same time."""


class Cred(NamedTuple):
    """`struct cred`: the user in whose name a client acts."""

    gid: int = 65534
    groups: tuple[int, ...] = ()
    net_raw: bool = False
    """Has CAP_NET_RAW."""
    uid: int = 65534
    net_admin: bool = False
    """Has CAP_NET_ADMIN."""


NOBODY: Final = Cred()


class SockFs:
    """`sock_mnt`, the pseudo file system in which sockets are files: it numbers their inodes."""

    __slots__ = ("next_ino",)

    def __init__(self) -> None:
        self.next_ino = 1


def kern_mount(net: "SocketNet") -> None:
    """`kern_mount(&sock_fs_type)`: sockets can be files, and clients have descriptors."""
    net.sock_mnt = SockFs()


def kern_unmount(net: "SocketNet") -> None:
    """Undo `kern_mount`."""
    net.sock_mnt = None


class Deferred(NamedTuple):
    """A request that waits for `posted` posts to come. identity: of its DEALER."""

    posted: int
    identity: bytes
    request: Request
    data: bytes


class Client:
    """One application process."""

    __slots__ = (
        "calls", "close_on_exec", "cred", "deferred", "fdt", "free", "gone", "id", "lent",
        "lent_limit", "next_fd", "post_data", "post_stalled", "posts", "regions",
    )  # fmt: skip

    def __init__(self, id: bytes, cred: Cred = NOBODY) -> None:
        self.id = id
        self.cred = cred
        self.fdt: dict[int, Socket] = {}
        self.close_on_exec: set[int] = set()
        """Descriptors with FD_CLOEXEC."""
        self.free: list[int] = []
        self.next_fd = 0
        self.calls: dict[tuple[bytes, int], Call] = {}
        """Calls that wait."""
        self.regions: set[int] = set()
        self.lent: deque[Place] = deque()
        """Slots that were lent to it; returned ones are forgotten now and then."""
        self.lent_limit = 64
        self.gone = False
        self.post_data = b""
        """Posted bytes that were not sent yet."""
        self.post_stalled = False
        """The posts wait for room in a send buffer."""
        self.posts = 0
        """How many posts have come as requests (tcp_post.py)."""
        self.deferred: list[Deferred] = []
        """Requests that came before posts that they follow."""


def fd_install(net: "SocketNet", client: Client, sock: "Socket", cloexec: bool = False) -> int:
    """`sock_map_fd`: the lowest free descriptor now means this socket. EMFILE where the client has
    `fs.nr_open` of them, ENFILE where all together have `fs.file-max`."""
    if len(client.fdt) >= net.sysctl["fs.nr_open"]:
        raise SysCallError(errno.EMFILE)
    if net.limits.nr_files >= net.sysctl["fs.file-max"]:
        raise SysCallError(errno.ENFILE)
    if client.free:
        fd = heappop(client.free)
    else:
        fd = client.next_fd
        client.next_fd += 1
    client.fdt[fd] = sock
    if cloexec:
        client.close_on_exec.add(fd)
    sock.f_count += 1
    net.limits.nr_files += 1
    return fd


def fd_remove(net: "SocketNet", client: Client, fd: int) -> "Socket":
    """`close_fd`: take the descriptor out of the table. EBADF."""
    sock = client.fdt.pop(fd, None)
    if sock is None:
        raise SysCallError(errno.EBADF)
    client.close_on_exec.discard(fd)
    heappush(client.free, fd)
    sock.f_count -= 1
    net.limits.nr_files -= 1
    return sock


def sockfd_lookup(client: Client, fd: int) -> "Socket":
    """`sockfd_lookup_light`: the socket behind a descriptor. EBADF."""
    sock = client.fdt.get(fd)
    if sock is None:
        raise SysCallError(errno.EBADF)
    return sock


def check_places(net: "SocketNet", client: Client, places: tuple[Place, ...]) -> None:
    """Check that these places exist and are the client's own. EFAULT."""
    seen: set[int] = set()
    for place in places:
        number, slot, gen, _, _ = place
        if number not in client.regions:
            raise SysCallError(errno.EFAULT, f"region {number:08x} was not announced")
        if not gen & 1 or slot in seen:
            raise SysCallError(errno.EFAULT, f"slot {slot} is free, or named twice")
        seen.add(slot)
        try:
            net.pool.view(place).release()
        except PoolError as e:
            raise SysCallError(errno.EFAULT, str(e)) from e


def lend(net: "SocketNet", client: Client, places: list[Place]) -> None:
    """Remember lent slots, so that they can be swept when the client dies."""
    lent = client.lent
    lent += places
    if len(lent) > client.lent_limit:
        regions = net.pool.regions
        client.lent = deque(
            p for p in lent if (region := regions.get(p[0])) and region.words[p[1]] == p[2]
        )
        client.lent_limit = max(64, 2 * len(client.lent))


def sweep(net: "SocketNet", client: Client) -> int:
    """Give back the slots that a dead client still had; returns their number."""
    n = 0
    for place in client.lent:
        region = net.pool.regions.get(place[0])
        if region is not None and region.free(place[1], place[2]):
            n += 1
    client.lent.clear()
    return n
