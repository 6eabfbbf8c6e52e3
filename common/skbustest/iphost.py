# SPDX-License-Identifier: MIT
"""IpHost: one ip core between drivers, transports and a socket layer that are only outboxes.

10.0.0.2/24 on eth0 (ifindex 2) with the gateway 10.0.0.1, and, where wanted, 10.1.0.2/24 on eth1
(ifindex 3). tcp and udp are registered.
"""

from random import Random
from typing import Final

from skbus.core.abi import InetAddProtocol, RegisterNetdevice
from skbus.core.entry import AnyEntry
from skbus.core.interfaces import Ip, Netif, NetifReceive
from skbus.core.skbuff import ETH_P_IP, SkBuff
from skbus.inet.headers import ethernet, ipv4
from skbusd.ip.core import IpCore
from skbusd.ip.netns import DeviceConfig, IpConfig, IpNet, RouteConfig
from skbustest.harness import TransportHarness, small_pool
from skbustest.packets import MAC, PEER_MAC, arp_skb, inet_aton

US: Final = inet_aton("10.0.0.2")
PEER: Final = inet_aton("10.0.0.9")
GW: Final = inet_aton("10.0.0.1")
FAR: Final = inet_aton("192.0.2.55")
US2: Final = inet_aton("10.1.0.2")
PEER2: Final = inet_aton("10.1.0.9")
MAC2: Final = bytes.fromhex("02000000aa02")


class IpHost(TransportHarness):
    """An ip core with devices and transports registered, unless `register` is False."""

    def __init__(
        self,
        *,
        sysctl: dict[str, object] | None = None,
        routes: tuple[RouteConfig, ...] = (),
        two: bool = False,
        register: bool = True,
    ) -> None:
        devices = [DeviceConfig("eth0", ("10.0.0.2/24",), "10.0.0.1")]
        if two:
            devices.append(DeviceConfig("eth1", ("10.1.0.2/24",)))
        pool, alloc = small_pool()
        self.pool = pool
        self.alloc = alloc
        self.ip = IpNet(
            rand=Random(1), pool=pool, alloc=alloc, config=IpConfig(tuple(devices), routes)
        )
        for name, value in (sysctl or {}).items():
            self.ip.sysctl.set(name, value)
        self.ipcore = IpCore(self.ip)
        super().__init__(self.ipcore, US)
        if not register:
            return
        self.register("eth0", 2, MAC)
        if two:
            self.register("eth1", 3, MAC2)
        self.add_protocol(6, "tcp", "tcp_v4_rcv", "tcp_v4_err")
        self.add_protocol(17, "udp", "udp_rcv", "udp_err")
        self.ip.outbox.clear()

    def register(
        self, dev: str, ifindex: int, mac: bytes, *, mtu: int = 1500, up: bool = True
    ) -> None:
        """nic registers its device."""
        item = RegisterNetdevice(f"nic.{dev}", dev, ifindex, mac, mtu, 0, 65536, up)
        self.call(NetifReceive.register_netdevice, item)

    def add_protocol(
        self, number: int, process: str, handler: AnyEntry | str, err_handler: AnyEntry | str
    ) -> None:
        """A transport registers, as at its start."""
        item = InetAddProtocol(number, process, str(handler), str(err_handler))
        self.call(Ip.inet_add_protocol, item)

    def learn(self, addr: bytes = PEER, mac: bytes = PEER_MAC, dev: int = 2) -> None:
        """Make a neighbour known: it asks for us by ARP."""
        us = US if dev == 2 else US2
        self.rcv(NetifReceive.arp_rcv, arp_skb(1, mac, addr, us, dev=dev))
        self.frames("eth0" if dev == 2 else "eth1")

    def frames(self, dev: str = "eth0") -> list[SkBuff]:
        """The skbs sent to the driver, with the Ethernet header in front."""
        return self.out(f"nic.{dev}", Netif.dev_queue_xmit)

    def packets(self, dev: str = "eth0") -> list[tuple[ipv4.IpHdr, bytes]]:
        """IPv4 packets that were sent: header and payload. Their slots are given back, as by nic.
        AssertionError where a checksum or a length is wrong."""
        out = []
        for skb in self.frames(dev):
            data = self.net.skb_bytes(skb)
            if skb.frags and not skb.lent:
                self.pool.free_frags(skb.frags)
            if ethernet.parse(data).h_proto != ETH_P_IP:
                continue
            iph = ipv4.parse(data, 14)
            if not ipv4.ip_fast_csum_ok(data, 14, iph.ihl) or len(data) != 14 + iph.tot_len:
                raise AssertionError(f"malformed packet: {data.hex()}")
            out.append((iph, data[14 + iph.ihl :]))
        return out
