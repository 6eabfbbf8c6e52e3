# SPDX-License-Identifier: MIT
"""UdpHost: one udp core between an ip and a socket layer that are only outboxes.

Its address is 10.0.0.2/24 on device 2; `answer_route` plays ip's part.
"""

from random import Random
from typing import Final

from skbus.core.abi import (
    Connect,
    DataReadyCb,
    GetPort,
    InetdevEvent,
    RcvCb,
    SkRet,
    UdpSendmsgCb,
)
from skbus.core.interfaces import InetTransport, Ip, SkCallbacks, TransportProto, UdpProtocol
from skbus.core.skbuff import SkBuff
from skbus.core.uapi import IPPROTO_UDP, SOCK_DGRAM
from skbus.inet.headers import ipv4
from skbusd.udp.core import UdpCore
from skbusd.udp.netns import UdpNet
from skbustest.harness import TransportHarness, small_pool
from skbustest.packets import inet_aton, udp_datagram

US: Final = inet_aton("10.0.0.2")
PEER: Final = inet_aton("10.0.0.9")
ANY: Final = b"\0\0\0\0"


class UdpHost(TransportHarness):
    """A udp core that knows its address."""

    def __init__(self, sysctl: dict[str, object] | None = None) -> None:
        self.pool, self.alloc = small_pool()
        self.udp = UdpNet(rand=Random(1), pool=self.pool)
        for name, value in (sysctl or {}).items():
            self.udp.sysctl.set(name, value)
        super().__init__(UdpCore(self.udp), US)
        self.addr("10.0.0.2", "10.0.0.255")
        self.udp.outbox.clear()
        self.req = 100

    def addr(self, addr: str, broadcast: str, *, up: bool = True) -> None:
        """ip tells of an address."""
        item = InetdevEvent(
            2, "eth0", inet_aton(addr), 24, inet_aton(broadcast), 1500, 0, 65536, up
        )
        self.call(InetTransport.inetdev_event, item)

    def ret(self, sk: int) -> SkRet:
        """The answer to the last request; earlier answers are forgotten."""
        *_, item = self.out("socket", SkCallbacks.sk_ret)
        if item.sk != sk:
            raise AssertionError(f"answer for {item.sk}, not {sk}")
        return SkRet._make(item)

    def socket(
        self, sk: int, addr: bytes | None = None, port: int = 0, *, reuse: int = 0
    ) -> UdpNet:
        """socket(2), and bind(2) where addr is given."""
        self.init(sk, SOCK_DGRAM, IPPROTO_UDP)
        if addr is not None:
            ret = self.bind(sk, addr, port, reuse=reuse)
            if ret.err:
                raise AssertionError(f"bind: {ret.err}")
        return self.udp

    def bind(self, sk: int, addr: bytes, port: int, *, reuse: int = 0) -> SkRet:
        """bind(2)"""
        self.req += 1
        self.call(TransportProto.bind, GetPort(sk, self.req, addr, port, reuse, 0))
        return self.ret(sk)

    def connect(self, sk: int, addr: bytes = PEER, port: int = 53) -> SkRet:
        """connect(2), with ip's answer if udp asks for a route."""
        self.req += 1
        self.call(TransportProto.connect, Connect(sk, self.req, addr, port))
        if self.asks_route():
            self.answer_route()
        return self.ret(sk)

    def sendto(
        self,
        sk: int,
        data: bytes,
        addr: bytes = b"",
        port: int = 0,
        *,
        flags: int = 0,
        ttl: int = 0,
        tos: int = -1,
        pool: bool = False,
    ) -> int:
        """sendto(2); returns the request's number. pool: payload in the pool, not in head."""
        self.req += 1
        place = self.alloc.put(data) if pool else None
        skb = SkBuff(b"", (place,)) if place is not None else SkBuff(data)
        skb.cb = UdpSendmsgCb(sk, self.req, addr, port, flags, tos, ttl)
        self.rcv(TransportProto.sendmsg, skb)
        return self.req

    def sent(self) -> list[SkBuff]:
        """The datagrams that were handed to ip."""
        return self.out("ip", Ip.ip_send_skb)

    def arrive(
        self,
        data: bytes,
        dport: int,
        *,
        saddr: bytes = PEER,
        sport: int = 5000,
        daddr: bytes = US,
        raw: bytes | None = None,
        dev: int = 2,
    ) -> None:
        """A datagram comes from ip. raw: the whole UDP datagram, for a special one."""
        datagram = udp_datagram(data, saddr, sport, daddr, dport) if raw is None else raw
        header = ipv4.build(saddr, daddr, 17, 20 + len(datagram))
        skb = SkBuff(bytes(14) + header + datagram, id=1, protocol=0x0800, dev=dev)
        skb.skb_iif = dev
        skb.mac_header, skb.network_header, skb.transport_header = 0, 14, 34
        skb.data = 34
        skb.cb = RcvCb(saddr, daddr, 0, 64, 1500)
        self.rcv(UdpProtocol.udp_rcv, skb)

    def delivered(self) -> list[tuple[DataReadyCb, bytes]]:
        """The datagrams given to the socket layer: cb (socket, sender) and payload."""
        return self.data_ready()
