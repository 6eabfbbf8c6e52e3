# SPDX-License-Identifier: MIT
"""The sockets of a script, and the one "under test", to which its packets belong.

packetdrill's rule: the socket made last is under test; a SYN that comes while it listens makes
its child the one under test.
"""

import ipaddress
from typing import Final

from skbus.packetdrill.backend import Addresses
from skbus.packetdrill.flow import Flow, FlowError, FlowState
from skbus.packetdrill.script import IcmpPacket, Packet, TcpPacket
from skbus.packetdrill.wire import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, Seen

_PROTOCOLS: Final = {IPPROTO_ICMP: "ICMP", IPPROTO_TCP: "TCP", IPPROTO_UDP: "UDP"}


class Sockets:
    """All sockets of a run."""

    def __init__(self, addresses: Addresses, first_port: int = 40001) -> None:
        self.addresses = addresses
        self.local = ipaddress.IPv4Address(addresses.local).packed
        self.remote = ipaddress.IPv4Address(addresses.remote).packed
        self.flows: list[Flow] = []
        self.under_test: Flow | None = None
        self._next_port = first_port

    # ---- system calls ------------------------------------------------------------------

    def opened(self, protocol: int, script_fd: int, fd: int, raw: bool = False) -> None:
        """socket()"""
        flow = Flow(protocol, (self.local, 0), (self.remote, 0), fd=fd, script_fd=script_fd)
        flow.raw = raw
        if raw:
            self._fill_in(flow)
        self.flows.append(flow)
        self.under_test = flow

    def by_script_fd(self, script_fd: int) -> Flow | None:
        """The newest socket that the script calls so."""
        for flow in reversed(self.flows):
            if flow.script_fd == script_fd:
                return flow
        return None

    def accepted(self, script_fd: int, fd: int, port: int) -> bool:
        """accept() gave a connection of the remote host's `port`. False: the script has none."""
        for flow in reversed(self.flows):
            if flow.fd < 0 and flow.remote[1] == port:
                flow.fd, flow.script_fd = fd, script_fd
                return True
        return False

    def bound(self, flow: Flow, address: bytes, port: int) -> None:
        """bind() has succeeded. The port 0, which is the stack's choice, stays unknown."""
        flow.bound = (address if any(address) else self.local, port or self.addresses.bind_port)

    def connecting(self, flow: Flow, address: bytes, port: int) -> None:
        """connect(), or sendto() with an address."""
        elsewhere = flow.protocol != IPPROTO_TCP and flow.remote != (address, port)
        if flow.state is FlowState.NEW or elsewhere:
            flow.connecting((address, port))

    # ---- packets -----------------------------------------------------------------------

    def of_another(self, flow: Flow, seen: Seen) -> bool:
        """Has a socket that is not under test any more sent that packet?"""
        return any(
            other is not flow and other.local == seen.source and other.remote == seen.dest
            for other in self.flows
            if other.local != flow.local or other.remote != flow.remote
        )

    def for_script(self, packet: Packet) -> Flow:
        """The socket that a packet of the script belongs to; it goes on to its next state.
        FlowError where there is none."""
        flow = self.under_test
        if isinstance(packet, TcpPacket) and packet.inbound:
            if flow is None or flow.state is FlowState.LISTENING:
                return self._child(packet)
            self._inbound(flow, packet)
        elif isinstance(packet, TcpPacket) and flow is not None:
            syn = "S" in packet.flags and "." not in packet.flags
            if syn and flow.state is FlowState.CONNECTING:
                flow.state = FlowState.SYN_SENT
                flow.script_local_isn = packet.seq
        if flow is None:
            raise FlowError("there is no socket that this packet could belong to")
        ours = isinstance(packet, IcmpPacket) or flow.protocol == (
            IPPROTO_TCP if isinstance(packet, TcpPacket) else IPPROTO_UDP
        )
        if not ours and not getattr(packet, "ports", None):
            raise FlowError(f"the socket under test is one of {_PROTOCOLS[flow.protocol]}")
        if flow.protocol != IPPROTO_TCP and packet.inbound:
            self._fill_in(flow)
        return flow

    def _fill_in(self, flow: Flow) -> None:
        """A datagram socket that has sent nothing yet: it is bound where bind() puts it."""
        if not flow.local[1]:
            flow.local = flow.bound or (self.local, self.addresses.bind_port)
        if not flow.remote[1]:
            flow.remote = (self.remote, self.addresses.connect_port)

    def _child(self, packet: TcpPacket) -> Flow:
        listener = self.under_test
        flow = Flow(
            IPPROTO_TCP,
            (listener.bound if listener else None) or (self.local, self.addresses.bind_port),
            (self.remote, self._next_port),
            FlowState.SYN_RECEIVED,
            remote_isn=packet.seq,
        )
        self._next_port += 1
        self.flows.append(flow)
        self.under_test = flow
        return flow

    @staticmethod
    def _inbound(flow: Flow, packet: TcpPacket) -> None:
        syn, ack = "S" in packet.flags, "." in packet.flags
        if flow.state is FlowState.SYNACK_SENT and ack:
            flow.state = FlowState.SYNACK_ACKED
        elif flow.state is FlowState.SYN_SENT and syn:
            flow.remote_isn = packet.seq
            if ack:
                flow.state = FlowState.CONNECTED

    @staticmethod
    def outbound(flow: Flow, packet: TcpPacket, seen: Seen) -> None:
        """The stack's packet for this line has been seen: a SYN-ACK has its initial number."""
        if flow.state is FlowState.SYN_RECEIVED and "S" in packet.flags and "." in packet.flags:
            flow.state = FlowState.SYNACK_SENT
            flow.script_local_isn = packet.seq
            flow.local_isn = seen.seq
