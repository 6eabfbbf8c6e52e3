# SPDX-License-Identifier: MIT
"""The rdm process without I/O: its entries, and what restarts make it forget."""

from typing import Final

from skbus.core.entry import AnyEntry, Handler
from skbus.core.interfaces import InetTransport, TransportProto
from skbus.inet.dgram import DgramCore, serve_dgram
from skbus_rdm import rdm
from skbus_rdm.netns import RdmNet
from skbus_rdm.wire import IPPROTO_RDM

SERVES: Final[dict[AnyEntry, Handler]] = serve_dgram(
    rdm.rdm_rcv,
    rdm.rdm_err,
    rdm.rdm_sendmsg,
    TransportProto.close.by(rdm.rdm_close),
    InetTransport.ip_route_output_ret.by(rdm.ip_route_output_ret),
    InetTransport.rt_cache_flush.by(rdm.rt_cache_flush),
    InetTransport.inetdev_event.by(rdm.inetdev_event),
)


class RdmCore(DgramCore):
    """`skbus.core.net.Core` for rdm."""

    def __init__(self, net: RdmNet) -> None:
        super().__init__(net, SERVES, IPPROTO_RDM)
        self.rdm = net

    def peer_up(self, process: str) -> None:
        """With the socket layer's sockets go their messages."""
        if process == "socket":
            for out in self.rdm.out.values():
                if out.timer is not None:
                    self.net.del_timer(out.timer)
            self.rdm.out.clear()
        super().peer_up(process)

    def status(self) -> dict[str, object]:
        """For `skbus status`."""
        net = self.rdm
        return {**super().status(), "associations": len(net.out), "heard": len(net.heard)}
