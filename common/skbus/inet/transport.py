# SPDX-License-Identifier: MIT
"""What every transport does alike, whatever its protocol: it answers the socket layer.

tcp, udp, ip (for raw and ping sockets) and plug-ins call these with their own `net`.
"""

from skbus.core.abi import SkRet
from skbus.core.interfaces import SkCallbacks
from skbus.core.net import Net


def sk_ret(net: Net, sk: int, req: int, err: int, val: object = None) -> None:
    """Answer request `req` of the socket layer. Nothing is sent where req is 0: no answer is
    wanted."""
    if req:
        net.call("socket", SkCallbacks.sk_ret, SkRet(sk, req, err, val))
