# SPDX-License-Identifier: MIT
"""What `test_lab.py` runs in a network namespace of its own: a NicCore on a real interface, with
the kernel's stack as peer. Prints one JSON object with what it saw.

The kernel is at 10.9.0.1, we are at 10.9.0.2, and speak just enough TCP to move bytes over a
link that loses nothing.
"""

import ctypes
import fcntl
import hashlib
import json
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from pyroute2 import IPRoute

from skbus.core.checksum import csum_from32to16, csum_tcpudp_nofold
from skbus.core.interfaces import Netif, NetifReceive
from skbus.core.pool import Allocator, Pool
from skbus.core.skbuff import CHECKSUM_PARTIAL, SKB_GSO_TCPV4, Frag, SkBuff
from skbus.core.snmp import nonzero
from skbus.inet.headers import ethernet, ipv4, tcp
from skbusd.nic.af_packet import AfPacketDevice, conflicts, open_socket
from skbusd.nic.core import NicCore
from skbusd.nic.link import Link
from skbusd.nic.netdev import KernelDevice, NicConfig, NicNet
from skbusd.nic.source import NicSource
from skbusd.nic.tun import TapDevice

US, THEM = b"\x0a\x09\0\x02", b"\x0a\x09\0\x01"
OUR_MAC = b"\x02\0\0\0\0\x02"
REGION = 9
CLASSES = ((2048, 4096), (66560, 128))
MSS = 1448
ISS = 5000
SERVER_PORT = 80
LONG = 45
"""Seconds in which what is to come comes, on a busy machine too."""


def setup(name: str) -> None:
    """The kernel's end: address, and our MAC, so that nobody need speak ARP."""
    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname=name)[0]
        ipr.link("set", index=index, state="up")
        ipr.addr("add", index=index, address="10.9.0.1", prefixlen=24)
        ipr.neigh("replace", dst="10.9.0.2", lladdr=OUR_MAC.hex(":"), ifindex=index, state=0x80)


def veth() -> None:
    with IPRoute() as ipr:
        ipr.link("add", ifname="theirs", kind="veth", peer="ours")
        ipr.link("set", index=ipr.link_lookup(ifname="ours")[0], state="up")
    setup("theirs")
    have_links()


def have_links() -> None:
    """Wait for the links of both ends: the kernel sees to them some time after they were set up,
    and loses what is sent until then."""
    end = time.monotonic() + LONG
    with IPRoute() as ipr:
        for name in ("ours", "theirs"):
            index = ipr.link_lookup(ifname=name)[0]
            while ipr.link("get", index=index)[0].get_attr("IFLA_OPERSTATE") != "UP":
                if time.monotonic() > end:
                    raise TimeoutError(f"{name} has no link")
                time.sleep(0.005)


def offloads_off(name: str) -> None:
    """`ethtool -K NAME tso off gso off tx off`: the kernel cuts and sums what we leave to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (0x1F, 0x24, 0x17):  # ETHTOOL_STSO, SGSO, STXCSUM
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, 0x8946, request)


def mac_of(name: str) -> bytes:
    link = Link(name)
    link.close()
    return link.dev_addr


class Host:
    """Our stack: a NicCore, and a toy TCP on top of it."""

    def __init__(self, device: KernelDevice) -> None:
        size = 65536 + sum(s * n for s, n in CLASSES)
        alloc = Allocator.format(REGION, bytearray(size), CLASSES)
        pool = Pool()
        pool.regions[REGION] = alloc
        self.alloc = alloc
        self.net = NicNet(
            "nic.ours",
            rand=Random(1),
            pool=pool,
            alloc=alloc,
            device=device,
            config=NicConfig("ours", dev_addr=OUR_MAC),
        )
        self.core = NicCore(self.net)
        self.source = NicSource(self.core, device)
        self.device = device
        self.their_mac = b""
        self.registered: list[tuple[bool, int]] = []
        self.largest = 0
        self.states: set[int] = set()
        self.core.start()
        self.receive()

    def receive(self) -> list[SkBuff]:
        """What has come since the last call."""
        self.net.now = time.monotonic_ns()
        while self.source.drain(64):
            pass
        self.net.timers.run(self.net, self.net.now)
        self.core.idle()
        skbs = []
        for entry, item in self.net.outbox.pop("ip", []):
            if entry is NetifReceive.register_netdevice:
                self.registered.append((item.up, item.mtu))
            elif entry is NetifReceive.ip_rcv:
                skbs.append(item)
            else:
                self.net.pool.free_frags(item.frags)
        return skbs

    def wait(self, until: Callable[[], bool]) -> None:
        """Let the shell's loop go round until something is so."""
        end = time.monotonic() + LONG
        while not until():
            if time.monotonic() > end:
                raise TimeoutError("it did not come to pass")
            select.select(self.source.filenos(), [], [], 0.05)

    def send(
        self, port: int, seq: int, ack: int, flags: int, payload: bytes = b"", options: bytes = b""
    ) -> None:
        """A segment, super-segment if it is long, with its checksum left to hardware."""
        length = 20 + len(options) + len(payload)
        seed = csum_from32to16(csum_tcpudp_nofold(US, THEM, length, 6))
        head = (
            ethernet.build(self.their_mac, OUR_MAC, 0x0800)
            + ipv4.build(US, THEM, 6, 20 + length, frag_off=ipv4.IP_DF)
            + tcp.build(SERVER_PORT, port, seq, ack, flags, 65535, options, check=seed)
        )
        frags: tuple[Frag, ...] = ()
        if payload:
            place = self.alloc.put(payload)
            assert place is not None
            frags = (place,)
        skb = SkBuff(head, frags, id=1)
        skb.ip_summed = CHECKSUM_PARTIAL
        skb.csum_start, skb.csum_offset = 34, 16
        if payload:
            skb.gso_size, skb.gso_type = MSS, SKB_GSO_TCPV4
            skb.gso_segs = -(-len(payload) // MSS)
        self.net.skb_received += 1
        self.core.entries[Netif.dev_queue_xmit](self.net, skb)
        self.source.flush()

    def serve(self, reply: bytes, expect: int) -> bytes:
        """Accept one connection, read `expect` bytes, send `reply`; returns what was read."""
        got = bytearray()
        start = ISS + 1
        state = {"rcv": 0, "snd": start, "acked": start, "port": 0, "window": 0, "scale": 0}
        sent = 0

        def step() -> bool:
            nonlocal sent
            for skb in self.receive():
                self._segment(skb, state, got)
            if len(got) >= expect:
                while sent < len(reply):
                    room = state["acked"] + state["window"] - state["snd"]
                    part = reply[sent : sent + min(60000, max(room, 0))]
                    if not part:
                        break
                    self.send(state["port"], state["snd"], state["rcv"], 0x18, part)
                    state["snd"] += len(part)
                    sent += len(part)
            return sent == len(reply) and len(got) >= expect and state["acked"] == state["snd"]

        self.wait(step)
        return bytes(got)

    def _segment(self, skb: SkBuff, state: dict[str, int], got: bytearray) -> None:
        packet = self.net.skb_bytes(skb)
        self.net.pool.free_frags(skb.frags)
        ip = ipv4.parse(packet, 0, len(packet))
        if ip.protocol != 6 or ip.daddr != US:
            return
        self.their_mac = skb.head[6:12]
        self.largest = max(self.largest, ip.tot_len)
        self.states.add(skb.ip_summed)
        hdr = tcp.parse(packet, ip.ihl)
        payload = packet[ip.ihl + hdr.doff : ip.tot_len]
        if hdr.flags & tcp.TCPHDR_SYN:
            options = tcp.parse_options(packet[ip.ihl + 20 : ip.ihl + hdr.doff], syn=True)
            state["scale"] = options.wscale or 0
            state["rcv"] = hdr.seq + 1
            state["port"] = hdr.source
            reply = tcp.build_options(tcp.TcpOptions(mss=1460, wscale=7))
            # The same once more for a SYN that comes once more, as we were slow.
            self.send(hdr.source, ISS, state["rcv"], 0x12, options=reply)
            return
        state["acked"] = hdr.ack_seq
        state["window"] = hdr.window << state["scale"]
        if payload and hdr.seq == state["rcv"] & 0xFFFFFFFF:
            got += payload
            state["rcv"] = (hdr.seq + len(payload)) & 0xFFFFFFFF
        if payload:
            self.send(state["port"], state["snd"], state["rcv"], 0x10)

    def summary(self) -> dict[str, Any]:
        net = self.net
        self.source.close()
        came = net.skb_born + net.skb_received
        went = net.skb_sent + net.skb_consumed + net.skb_dropped + self.core.held()
        return {
            "drops": net.drops,
            "conserved": came == went,
            "in_use": self.alloc.in_use() - (1 if net.rx_buffer.slot else 0),
            "mib": nonzero(net.mib),
            "registered": self.registered,
            "largest": self.largest,
            "ip_summed": sorted(self.states),
        }


def checksum_errors() -> int:
    """TcpInCsumErrors of the kernel."""
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if "Tcp:" in line
    )
    return int(values[names.index("InCsumErrors")])


def exchange(host: Host) -> dict[str, Any]:
    """A megabyte each way over a TCP connection of the kernel's."""
    up, down = Random(1).randbytes(1 << 20), Random(2).randbytes(1 << 20)
    result: dict[str, Any] = {}

    def client() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(LONG)
            sock.connect(("10.9.0.2", SERVER_PORT))
            sock.sendall(up)
            got = bytearray()
            while len(got) < len(down):
                got += sock.recv(1 << 20) or b"!" * len(down)
            result["down_equal"] = bytes(got) == down

    thread = threading.Thread(target=client)
    thread.start()
    got = host.serve(down, len(up))
    thread.join(LONG)
    result["up_equal"] = hashlib.sha256(got).digest() == hashlib.sha256(up).digest()
    result["checksum_errors"] = checksum_errors()
    return {**result, **host.summary()}


def run_veth(*options: str) -> dict[str, Any]:
    veth()
    if "offloads-off" in options:
        offloads_off("ours")
        offloads_off("theirs")
    if "fd" in options:
        device = AfPacketDevice("ours", dev_addr=OUR_MAC, fd=open_socket("ours").detach())
    else:
        device = AfPacketDevice(
            "ours",
            dev_addr=OUR_MAC,
            vnet_hdr="no-vnet-hdr" not in options,
            auxdata="auxdata" in options,
        )
    return exchange(Host(device))


def run_tap() -> dict[str, Any]:
    device = TapDevice("theirs")
    setup("theirs")
    device.poll_link()
    return exchange(Host(device))


def run_link() -> dict[str, Any]:
    """Down, up, a new MTU; then the interface goes, and comes back under its name."""
    veth()
    host = Host(AfPacketDevice("ours", dev_addr=OUR_MAC))
    host.their_mac = mac_of("theirs")

    def told(up: bool, mtu: int = 1500) -> None:
        host.wait(lambda: bool(host.receive() or True) and host.registered[-1] == (up, mtu))

    told(True)
    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname="ours")[0]
        ipr.link("set", index=index, state="down")
        told(False)
        host.send(1, 1, 1, 0x10)
        ipr.link("set", index=index, state="up")
        told(True)
        ipr.link("set", index=index, mtu=1400)
        told(True, 1400)
        have_links()
        seen = [ping(host)]
        ipr.link("del", index=index)
        told(False, 1400)
        veth()
        told(True)
        seen.append(ping(host))
    return {"seen": seen, **host.summary()}


def ping(host: Host) -> bool:
    """Does a datagram of the kernel's reach us?"""
    seen: list[SkBuff] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello from the kernel", ("10.9.0.2", 9))

    def step() -> bool:
        seen.extend(skb for skb in host.receive() if b"hello from" in host.net.skb_bytes(skb))
        return bool(seen)

    host.wait(step)
    return True


def run_flood() -> dict[str, Any]:
    """More frames than the socket's buffer holds while nobody reads."""
    veth()
    host = Host(AfPacketDevice("ours", dev_addr=OUR_MAC))
    n = 30000
    frame = OUR_MAC + mac_of("theirs") + b"\x88\xb5" + bytes(50)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("theirs", 0))
        for _ in range(n):
            sock.send(frame)
    for skb in host.receive():
        host.net.pool.free_frags(skb.frags)
    host.core.status()
    unknown = host.net.drops["SKB_DROP_REASON_UNHANDLED_PROTO"]
    missed = host.net.mib["DevRxMissedErrors"]
    return {"n": n, "unknown": unknown, "missed": missed, **host.summary()}


def run_vlan(*options: str) -> dict[str, Any]:
    """Tagged frames are for nobody here, whether filtered in the kernel or dropped by us; those
    that only have a priority are ours."""
    veth()
    host = Host(AfPacketDevice("ours", dev_addr=OUR_MAC, auxdata="auxdata" in options))
    tail = ipv4.build(THEM, US, 17, 40) + bytes(20)
    link = OUR_MAC + mac_of("theirs")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("theirs", 0))
        for tag in ("81000007", "810060008100000788a80000", "81000000", "8100a000", "88a86000", ""):
            sock.send(link + bytes.fromhex(tag) + b"\x08\x00" + tail)
    seen: list[int] = []

    def step() -> bool:
        seen.extend(skb.vlan_tci for skb in host.receive() if skb.head[26:30] == THEM)
        return -1 in seen

    host.wait(step)
    return {"seen": seen, **host.summary()}


def run_conflicts() -> dict[str, Any]:
    """Does the driver say what will go wrong?"""
    veth()
    host = Host(AfPacketDevice("ours", dev_addr=OUR_MAC))
    mac = mac_of("ours")
    knob = Path("/proc/sys/net/ipv4/conf/ours/forwarding")
    knob.write_text("0\n")
    quiet = [conflicts("ours", mac)]
    knob.write_text("1\n")
    quiet.append(conflicts("ours", OUR_MAC))
    device = host.device
    assert isinstance(device, AfPacketDevice)
    quiet.append(device.trouble())
    device.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return {
        "quiet": quiet,
        "forwarding": conflicts("ours", mac),
        "buffer": device.trouble(),
        **host.summary(),
    }


PROGRAMS: dict[str, Callable[..., dict[str, Any]]] = {
    "veth": run_veth,
    "tap": run_tap,
    "link": run_link,
    "flood": run_flood,
    "vlan": run_vlan,
    "conflicts": run_conflicts,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(PROGRAMS[sys.argv[1]](*sys.argv[2:])))
