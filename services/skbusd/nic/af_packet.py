# SPDX-License-Identifier: MIT
"""The driver for a real interface: an AF_PACKET socket with `PACKET_VNET_HDR` (packet(7)).

`NicCore` calls `recv` and `send` through `netdev.Device`. With the `virtio_net_hdr`, frames of up
to 64 KB pass in either direction, and checksums are computed only where they are needed.

The kernel also sees the frames, as a packet socket gets copies. The kernel's own stack of the
namespace goes on working on the same interface. So a stack has one of two kinds of address:

- An **own MAC and own IP** (the default). For the kernel, frames to our MAC are PACKET_OTHERHOST,
  and it drops them without a word: no RST, no ICMP, no redirect. A real network card is told of our
  MAC by PACKET_MR_UNICAST, which makes it promiscuous if it must be. Switches and bridges learn the
  MAC from our frames. Two things do not work, as with macvlan. A wireless card refuses foreign
  source addresses. The host that owns the interface cannot reach us through it: its own frames
  leave by the wire, and PACKET_IGNORE_OUTGOING hides them from us. With the *interface's* MAC and
  an IP of our own, the kernel takes our packets for packets to be forwarded. It drops them silently
  with `ip_forward=0`, but sends them back out, with redirects, with `ip_forward=1`. `conflicts`
  says so.
- **Take-over** (`skbus.stack.takeover`): the kernel gives its address up, and MAC and IP are ours.

Errors: ENETDOWN comes once when the interface goes down, and the socket wakes up again with the
interface. An interface that is deleted and made anew under its name is bound again. EINVAL on
receive is one frame dropped. Frames that overrun the socket's buffer are counted (`missed`).
"""

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Final

from skbus.inet.headers import Buffer
from skbusd.nic.eth import VIRTIO_NET_HDR_LEN
from skbusd.nic.link import Link, RxInterrupt

# include/uapi/linux/if_packet.h
SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_STATISTICS: Final = 6
PACKET_AUXDATA: Final = 8
PACKET_VNET_HDR: Final = 15
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_MR_UNICAST: Final = 3
PACKET_MR_ALLMULTI: Final = 2
ETH_P_ALL: Final = 0x0003
TP_STATUS_CSUMNOTREADY: Final = 1 << 3
TP_STATUS_VLAN_VALID: Final = 1 << 4
TP_STATUS_CSUM_VALID: Final = 1 << 7
_AUXDATA: Final = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_STATS: Final = struct.Struct("=II")
_MREQ: Final = struct.Struct("=iHH8s")
_ANCILLARY: Final = 64

SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_ATTACH_FILTER: Final = 26
BUFFER: Final = 4 << 20

# linux/filter.h: drop frames with a taken-out 802.1Q tag that names a network (VID other than 0)
_NO_VLAN: Final = (
    (0x30, 0, 0, 0xFFFFF000 + 48),  # ldb [SKF_AD_VLAN_TAG_PRESENT]
    (0x15, 3, 0, 0),  # jeq #0, ret all
    (0x20, 0, 0, 0xFFFFF000 + 44),  # ld [SKF_AD_VLAN_TAG]
    (0x54, 0, 0, 0xFFF),  # and #0xfff
    (0x15, 0, 1, 0),  # jeq #0
    (0x06, 0, 0, 0x7FFFFFFF),  # ret all
    (0x06, 0, 0, 0),  # ret #0
)
_FILTER: Final = struct.Struct("=HBBI")


def open_socket(name: str, *, vnet_hdr: bool = True) -> socket.socket:
    """A packet socket on interface `name`, which need not be up. OSError where there is no such
    interface, or CAP_NET_RAW is missing."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        sock.setblocking(False)
        if vnet_hdr:
            sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        try:
            sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        except OSError as e:  # Linux before 4.20
            raise OSError(e.errno, "PACKET_IGNORE_OUTGOING needs Linux 4.20 or newer") from e
        for force, plain in (
            (SO_RCVBUFFORCE, socket.SO_RCVBUF),
            (SO_SNDBUFFORCE, socket.SO_SNDBUF),
        ):
            try:
                sock.setsockopt(socket.SOL_SOCKET, force, BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER)
        sock.bind((name, ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock


class AfPacketDevice:
    """`netdev.Device` on an AF_PACKET socket.

    dev_addr: our MAC where it is not the interface's: the card is told to receive it. fd: a socket
    that `open_socket` made, e.g. in a supervisor; we own it from now on. auxdata: also receive
    frames with an 802.1Q tag that the kernel took out (a microsecond more for each frame). Without
    it frames of a VLAN are filtered out in the kernel, which has no VLAN device for them either.
    """

    def __init__(
        self,
        name: str,
        *,
        dev_addr: bytes = b"",
        fd: int | None = None,
        vnet_hdr: bool = True,
        auxdata: bool = False,
    ) -> None:
        self.name = name
        self.link = Link(name)
        if fd is None:
            self.sock = open_socket(name, vnet_hdr=vnet_hdr)
        else:
            self.sock = socket.socket(fileno=fd)
            self.sock.setblocking(False)
        self.vnet_hdr = bool(self.sock.getsockopt(SOL_PACKET, PACKET_VNET_HDR))
        self.gso_udp = self.vnet_hdr and _kernel() >= (6, 2)
        self.rx_vnet = bytearray(VIRTIO_NET_HDR_LEN)
        self.rx_csum_valid = False
        self.rx_csum_partial = False
        self.rx_vlan_tci = -1
        self._foreign = dev_addr
        self._auxdata = auxdata or not self.vnet_hdr
        self._fd = self.sock.fileno()
        self._irq = RxInterrupt(self._fd)
        self._offset = VIRTIO_NET_HDR_LEN if self.vnet_hdr else 0
        if self._auxdata:
            self.sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        else:
            self._attach_filter()
        self._bound = self.link.ifindex
        self._join()

    # ---- the link ----------------------------------------------------------------------

    @property
    def ifindex(self) -> int:
        """The interface's number."""
        return self.link.ifindex

    @property
    def dev_addr(self) -> bytes:
        """The interface's own MAC."""
        return self.link.dev_addr

    @property
    def mtu(self) -> int:
        """Bytes of IP packet."""
        return self.link.mtu

    @property
    def gso_max_size(self) -> int:
        """The interface's `gso_ipv4_max_size`; packet(7) takes as much as sendmsg can name."""
        return self.link.gso_max_size

    @property
    def up(self) -> bool:
        """Up and running."""
        return self.link.up

    def filenos(self) -> list[int]:
        """The packet socket and the news of links."""
        return [self._irq.fileno(), self.link.fileno()]

    def irq(self, on: bool) -> bool:
        """As `netdev.Device.irq`."""
        self._irq.enable(on)
        return True

    def link_event(self) -> bool:
        """Was there news of links?"""
        return self.link.event()

    def poll_link(self) -> bool:
        """As `netdev.Device.poll_link`; binds again if the interface was made anew."""
        changed = self.link.refresh()
        if self.link.exists and self.link.ifindex != self._bound:
            try:
                self.sock.bind((self.name, ETH_P_ALL))
                self._bound = self.link.ifindex
                self._join()
            except OSError:
                self.link.exists = self.link.up = False  # gone again: the next news tells
        return changed

    def _join(self) -> None:
        """Ask the card for multicast, and for our MAC where it is another one."""
        if not self.link.exists:
            return
        wanted = [(PACKET_MR_ALLMULTI, b"")]
        if self._foreign and self._foreign != self.link.dev_addr:
            wanted.append((PACKET_MR_UNICAST, self._foreign))
        for kind, addr in wanted:
            request = _MREQ.pack(self.link.ifindex, kind, len(addr), addr)
            self.sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)

    def _attach_filter(self) -> None:
        import ctypes

        code = b"".join([_FILTER.pack(*line) for line in _NO_VLAN])
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("HL", len(_NO_VLAN), ctypes.addressof(buffer))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    # ---- frames ------------------------------------------------------------------------

    def recv(self, room: memoryview) -> int:
        """As `netdev.Device.recv`."""
        try:
            if self._auxdata:
                return self._recv_auxdata(room)
            return os.readv(self._fd, (self.rx_vnet, room)) - VIRTIO_NET_HDR_LEN
        except BlockingIOError:
            return 0
        except OSError as e:
            # ENETDOWN is told once, when the interface goes down; EINVAL is one frame with a
            # segmentation that the header cannot express
            if e.errno in (errno.ENETDOWN, errno.EINVAL, errno.EINTR, errno.ENOBUFS):
                return -1
            raise

    def _recv_auxdata(self, room: memoryview) -> int:
        bufs: list[Buffer] = [self.rx_vnet, room] if self._offset else [room]
        n, ancillary, _, _ = self.sock.recvmsg_into(bufs, _ANCILLARY)
        self.rx_vlan_tci = -1
        for level, kind, data in ancillary:
            if level == SOL_PACKET and kind == PACKET_AUXDATA and len(data) >= _AUXDATA.size:
                status, _, _, _, _, tci, _ = _AUXDATA.unpack_from(data)
                self.rx_csum_valid = bool(status & TP_STATUS_CSUM_VALID)
                self.rx_csum_partial = bool(status & TP_STATUS_CSUMNOTREADY)
                if status & TP_STATUS_VLAN_VALID:
                    self.rx_vlan_tci = tci
        return n - self._offset

    def send(self, vnet: bytes, iov: list[Buffer]) -> int:
        """As `netdev.Device.send`."""
        try:
            self.sock.sendmsg([vnet, *iov] if self._offset else iov)
        except OSError as e:
            return e.errno or errno.EIO
        return 0

    def trouble(self) -> str:
        """A sentence on a too small socket buffer, which loses frames, with the remedy; "" if
        none."""
        have = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        if have >= BUFFER:
            return ""
        return (
            f"the packet socket's receive buffer is only {have} bytes, which bursts will overrun: "
            f"set net.core.rmem_max to {BUFFER}, or allow CAP_NET_ADMIN"
        )

    def missed(self) -> int:
        """PACKET_STATISTICS: reading it sets it back to zero."""
        try:
            raw = self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATS.size)
        except OSError:
            return 0
        drops: int = _STATS.unpack(raw)[1]
        return drops

    def close(self) -> None:
        """Close the socket and the news of links."""
        self._irq.close()
        self.sock.close()
        self.link.close()


def conflicts(name: str, dev_addr: bytes) -> str:
    """The kernel setting that disturbs a stack with the MAC `dev_addr` on interface `name`, as a
    sentence with its remedy; "" if none."""
    link = Link(name)
    link.close()
    if dev_addr != link.dev_addr:
        return ""
    knob = f"/proc/sys/net/ipv4/conf/{name}/forwarding"
    try:
        on = Path(knob).read_text().strip() == "1"
    except OSError:
        return ""
    if not on:
        return ""
    return (
        f"{knob} is 1, and our MAC is the interface's: the kernel will forward our packets, or "
        "answer them with redirects; set it to 0, or give the device a MAC of its own"
    )


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


__all__ = ["AfPacketDevice", "conflicts", "open_socket"]
