# SPDX-License-Identifier: MIT
"""UDP as the socket layer sees it: `udp_prot` (`net/ipv4/udp.c`, `datagram.c`, the parts that run
on behalf of an application).

Called by af_inet.py through `sk.sk_prot`, and by core.py with what udp reports. Speaks to the
process "udp" by the entries of `skbus.core.abi`. RFC 768, RFC 1122 4.1.
"""

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from skbus.core.abi import (
    Close,
    Connect,
    Connected,
    DataReadyCb,
    Disconnect,
    GetPort,
    Getsockopt,
    LocalAddr,
    Recvmsg,
    Setsockopt,
    Shutdown,
    SkErrorReport,
    SkStateChange,
    SkWriteSpace,
    UdpSendmsgCb,
)
from skbus.core.interfaces import TransportProto
from skbus.core.pool import PoolError
from skbus.core.skbuff import SKB_GSO_BATCH, Frag, SkBuff
from skbus.core.syscall import SysCallError
from skbus.inet.ip_sockglue import int_value
from skbus.inet.mcast import MEMBERSHIP, decode_mc_list, restore_options
from skbusd.socket import uapi
from skbusd.socket.call import (
    Call,
    PostCall,
    RecvCall,
    RecvmmsgCall,
    SendCall,
    hold,
    sk_wait_event,
    sk_wake,
    sys_return,
)
from skbusd.socket.datagram import (
    SKB_TRUESIZE,
    udp_dequeue,
    udp_recvmmsg,
    udp_singles,
    udp_split_first,
    udp_told,
)
from skbusd.socket.ip_sockglue import (
    NO_COOKIE,
    UDP_CMSG_GRO,
    IpcmCookie,
    answer_cmsg_getsockopt,
    ip_cmsg_recv,
    ip_cmsg_send,
    ip_cmsg_setsockopt,
    ip_recv_error,
    sock_recv_cmsgs,
)
from skbusd.socket.msghdr import Cmsg
from skbusd.socket.netns import SocketNet
from skbusd.socket.post import udp_posted
from skbusd.socket.proto import Proto, Result
from skbusd.socket.recv import Parts, recv_return, skb_copy_datagram, skb_hand_over, skb_relieve
from skbusd.socket.request import new_request, transport_call
from skbusd.socket.sock import (
    InetSock,
    PendingFrames,
    UdpSock,
    init_sock,
    purge_receive_queue,
    sk_free,
    sk_set_option,
    sock_error,
)

UDP_MAX: Final = 65507
"""Bytes of payload in the biggest datagram over IPv4."""
HEAD_MAX: Final = 2048
"""Payload up to this travels in the skb's head."""
_MIB: Final = {"UDP": "Udp", "UDP-Lite": "UdpLite"}
"""How the counters of a protocol begin."""


def udp_init_sock(net: SocketNet, sk: InetSock) -> None:
    """`udp_init_sock`: udp hears of the socket."""
    if net.tracing:
        net.trace("udp_init_sock", sk=sk.number)
    net.call("udp", TransportProto.init, init_sock(sk))


def udp_get_port(net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result) -> None:
    """`udp_v4_get_port`: bind."""
    reuse = sk.sk_reuse | sk.sk_reuseport << 1

    def bound(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            set_local(sk, value)
        then(net, err, value)

    transport_call(
        net,
        sk,
        TransportProto.bind,
        lambda req: GetPort(sk.number, req, addr, port, reuse, sk.sk_bound_dev_if),
        bound,
    )


def ip4_datagram_connect(
    net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result
) -> None:
    """`ip4_datagram_connect`: the peer's address, from now on."""

    def connected(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            sk.inet_daddr = addr
            sk.inet_dport = port
            sk.sk_state = uapi.TCP_ESTABLISHED
            sk.inet_saddr = value.addr
            sk.inet_sport = sk.inet_num = value.port
        then(net, err, value)

    transport_call(
        net, sk, TransportProto.connect, lambda req: Connect(sk.number, req, addr, port), connected
    )


def udp_disconnect(net: SocketNet, sk: InetSock, then: Result | None) -> None:
    """`udp_disconnect`: no peer any more."""
    sk.inet_daddr = uapi.INADDR_ANY
    sk.inet_dport = 0
    sk.inet_saddr = sk.inet_rcv_saddr
    sk.sk_state = uapi.TCP_CLOSE
    if then is None:
        net.call(sk.sk_prot.process, TransportProto.disconnect, Disconnect(sk.number, 0))
    else:
        transport_call(
            net, sk, TransportProto.disconnect, lambda req: Disconnect(sk.number, req), then
        )


def set_local(sk: InetSock, value: LocalAddr | Connected | None) -> None:
    if value is not None:
        sk.inet_saddr = sk.inet_rcv_saddr = value.addr
        sk.inet_sport = sk.inet_num = value.port


def inet_autobind(net: SocketNet, sk: InetSock) -> None:
    """`inet_autobind`: a port of udp's choice, before the first datagram."""
    sk.sk_prot.get_port(net, sk, uapi.INADDR_ANY, 0, lambda net, err, value: None)


def udp_sendmsg(net: SocketNet, call: SendCall, sk: InetSock) -> None:
    """`udp_sendmsg`, the application's side: one datagram; udp answers whether it went out."""
    if call.flags & uapi.MSG_OOB:
        raise SysCallError(errno.EOPNOTSUPP)
    if sk.sk_err and not isinstance(call, PostCall):
        raise SysCallError(sock_error(sk))
    if sk.sk_shutdown & uapi.SEND_SHUTDOWN:
        raise SysCallError(errno.EPIPE)
    if call.size > UDP_MAX:
        raise SysCallError(errno.EMSGSIZE)
    assert isinstance(sk, UdpSock)
    addr, port = b"", 0
    if call.addr is not None:
        family, port, addr = call.addr
        if family not in (uapi.AF_INET, uapi.AF_UNSPEC):
            raise SysCallError(errno.EAFNOSUPPORT)
        if len(addr) != 4 or not port:
            raise SysCallError(errno.EINVAL)
    elif sk.sk_state != uapi.TCP_ESTABLISHED and sk.pending is None:
        raise SysCallError(errno.EDESTADDRREQ)
    cookie = ip_cmsg_send(net, call.control, True) if call.control else NO_COOKIE
    if sk.pending is not None or sk.corkflag or call.flags & uapi.MSG_MORE:
        udp_append_data(net, call, sk, addr, port, cookie)
        return
    if not sock_alloc_send(net, call, sk, _sendmsg_again):
        return
    frames = PendingFrames(addr, port, cookie)
    frames.chunks, frames.size = call.chunks, call.size
    ip_make_skb(net, call, sk, frames)


def sock_alloc_send(
    net: SocketNet, call: SendCall, sk: InetSock, retry: Callable[[SocketNet, SendCall], None]
) -> bool:
    """`sock_alloc_send_skb`: is there room in the send buffer, and a port to send from? False: the
    call waits for it, behind those that wait already."""
    queued = sk.sk_wmem_queued
    if (
        queued
        and not isinstance(call, PostCall)
        and (
            queued + call.size + SKB_TRUESIZE > sk.sk_sndbuf
            or (sk.sk_wq and _sends_before(sk, call, retry))
        )
    ):
        sk_wait_event(net, call, sk, retry)
        return False
    if call.waits:
        # From here on it waits for its answer, and is not to be tried once more.
        sk.sk_wq.remove(call)
        call.waits.clear()
        call.retry = None
    if not sk.inet_num:
        inet_autobind(net, sk)
    return True


def _sends_before(sk: InetSock, call: SendCall, retry: object) -> bool:
    """Does a datagram wait for room that was there before?"""
    for other in sk.sk_wq:
        if other is call:
            return False
        if other.retry is retry:
            return True
    return False


def ip_make_skb(net: SocketNet, call: SendCall | None, sk: InetSock, frames: PendingFrames) -> None:
    """`ip_make_skb`: the bytes of one datagram go to the transport. call: who wants to hear what
    became of it."""
    assert isinstance(sk, UdpSock)
    head = b""
    frags: list[Frag] = []
    chunks = frames.chunks
    while chunks:
        chunk = chunks.popleft()
        if type(chunk) is bytes and not frags and len(head) + len(chunk) <= HEAD_MAX:
            head += chunk
        elif type(chunk) is bytes:
            frags.append((net.alloc.put(chunk) if net.alloc else None) or chunk)
        else:
            frags.append(chunk)
    size = frames.size + SKB_TRUESIZE
    sk.sk_wmem_queued += size

    def sent(net: SocketNet, err: int, _: Any) -> None:
        sk.sk_wmem_queued -= size
        if call is not None:
            sys_return(net, call, err, call.size)
        sk_wake(net, sk)

    if call is not None and not isinstance(call, PostCall):
        hold(net, call)
    cookie = frames.cookie
    flags = 0 if call is None else call.flags

    def make(req: int) -> UdpSendmsgCb:
        return UdpSendmsgCb(sk.number, req, frames.addr, frames.port, flags, *cookie[:6])

    udp_send_skb(net, sk, head, tuple(frags), make, sent, cookie)


def udp_append_data(
    net: SocketNet, call: SendCall, sk: UdpSock, addr: bytes, port: int, cookie: IpcmCookie
) -> None:
    """UDP_CORK, MSG_MORE: one more piece of a datagram (`ip_append_data`). It goes to where the
    first piece said, when a piece comes without either (`udp_push_pending_frames`)."""
    pending = sk.pending
    if pending is None:
        pending = sk.pending = PendingFrames(addr, port, cookie)
    if pending.size + call.size > UDP_MAX:
        udp_flush_pending_frames(net, sk)
        raise SysCallError(errno.EMSGSIZE)
    pending.chunks.extend(call.chunks)
    call.chunks.clear()
    pending.size += call.size
    if sk.corkflag or call.flags & uapi.MSG_MORE:
        sys_return(net, call, 0, call.size)
    else:
        udp_push_pending_frames(net, sk, call)


def udp_push_pending_frames(net: SocketNet, sk: UdpSock, call: SendCall | None) -> None:
    """`udp_push_pending_frames`: the datagram is whole."""
    frames, sk.pending = sk.pending, None
    if frames is not None:
        if not sk.inet_num:
            inet_autobind(net, sk)
        ip_make_skb(net, call, sk, frames)


def udp_flush_pending_frames(net: SocketNet, sk: InetSock) -> None:
    """`udp_flush_pending_frames`: the datagram will never be sent."""
    if isinstance(sk, UdpSock) and sk.pending is not None:
        for chunk in sk.pending.chunks:
            if type(chunk) is tuple:
                net.pool.free(chunk)
        sk.pending = None


def udp_send_skb(
    net: SocketNet,
    sk: InetSock,
    head: bytes,
    frags: tuple[Frag, ...],
    make: Any,
    then: Result,
    cookie: IpcmCookie,
) -> None:
    """Hand one datagram to udp; `then` hears what became of it."""
    req = new_request(net, sk.sk_prot.process, TransportProto.sendmsg, then)
    cb = make(req)
    skb = net.alloc_skb(head, frags, cb=cb)
    skb.priority = sk.sk_priority if cookie.priority < 0 else cookie.priority
    skb.mark = sk.sk_mark if cookie.mark < 0 else cookie.mark
    if net.tracing:
        net.trace("udp_sendmsg", skb, sk=sk.number, len=skb.len)
    net.call_skb(sk.sk_prot.process, TransportProto.sendmsg, skb, cb)


def _sendmsg_again(net: SocketNet, call: SendCall) -> None:
    sk = call.waits[0]
    if isinstance(sk, InetSock):
        udp_sendmsg(net, call, sk)


def udp_data_ready(net: SocketNet, sk: InetSock, skb: SkBuff, cb: DataReadyCb) -> None:
    """`sk_data_ready`: a datagram, or a batch of them. Dropped where the receive buffer is full."""
    batch = skb.gso_type & SKB_GSO_BATCH
    size = skb.len + (skb.gso_segs if batch else 1) * SKB_TRUESIZE
    if batch and sk.sk_rmem_alloc + size > sk.sk_rcvbuf:
        _data_ready_singly(net, sk, skb, cb)
        return
    if sk.sk_rmem_alloc + size > sk.sk_rcvbuf and sk.sk_receive_queue:
        prot = sk.sk_prot
        if prot.name in _MIB:
            net.mib[_MIB[prot.name] + "RcvbufErrors"] += 1
            net.mib[_MIB[prot.name] + "InErrors"] += 1
        if isinstance(sk, UdpSock):
            sk.sk_drops += 1
        net.call(prot.process, TransportProto.recvmsg, Recvmsg(sk.number, skb.len))
        net.kfree_skb(skb, "SOCKET_RCVBUFF", sk=sk.number)
        return
    sk.sk_receive_queue.append(skb)
    sk.sk_rmem_alloc += size
    sk_wake(net, sk)
    if skb.frags and sk.sk_receive_queue and sk.sk_receive_queue[-1] is skb:
        try:
            skb_relieve(net, skb)
        except PoolError:
            pass  # the reader will find out


def _data_ready_singly(net: SocketNet, sk: InetSock, skb: SkBuff, cb: DataReadyCb) -> None:
    """There is no room for all of a batch, so it is asked for each."""
    try:
        singles = udp_singles(skb, net.skb_bytes(skb))
    except PoolError:
        udp_told(net, sk, skb.gso_segs, skb.len)
        net.kfree_skb(skb, "SKBUS_STALE_PLACE", sk=sk.number)
        return
    net.skb_born += len(singles)
    net.consume_skb(skb)
    for single in singles:
        udp_data_ready(net, sk, single, cb)


def udp_recvmsg(net: SocketNet, call: RecvCall, sk: InetSock) -> None:
    """`udp_recvmsg`: one datagram; what does not fit is lost, and MSG_TRUNC says so."""
    if isinstance(call, RecvmmsgCall):
        assert isinstance(sk, UdpSock)
        udp_recvmmsg(net, call, sk)
        return
    flags = call.flags
    if flags & uapi.MSG_ERRQUEUE:
        ip_recv_error(net, call, sk)
        return
    if flags & uapi.MSG_OOB:
        raise SysCallError(errno.EOPNOTSUPP)
    if sk.sk_err:
        raise SysCallError(sock_error(sk))
    queue = sk.sk_receive_queue
    if not queue:
        if sk.sk_shutdown & uapi.RCV_SHUTDOWN:
            recv_return(net, call, Parts(), None, 0)
            return
        sk_wait_event(net, call, sk, _recvmsg_again)
        return
    if queue[0].gso_type & SKB_GSO_BATCH:
        try:
            udp_split_first(net, sk)
        except PoolError as e:
            raise SysCallError(errno.EIO, str(e)) from e
    skb = queue[0]
    cb = skb.cb
    assert isinstance(cb, DataReadyCb)
    length = skb.len
    msg_flags = uapi.MSG_TRUNC if length > call.size else 0
    if msg_flags and flags & uapi.MSG_TRUNC:
        # The caller wants to know the datagram's real length (`recvmsg`'s result).
        msg_flags |= length << 32
    cmsgs: list[Cmsg] | None = None
    if sk.cmsg_flags:
        cmsgs = sock_recv_cmsgs(net, sk, skb, cb.seq)
        cmsgs += ip_cmsg_recv(sk, skb, cb)
    parts = Parts()
    peek = flags & uapi.MSG_PEEK
    if not peek:
        assert isinstance(sk, UdpSock)
        sk.ahead.clear()
        if udp_dequeue(sk, length):
            udp_told(net, sk, 1, length)
    try:
        if peek or msg_flags:
            skb_copy_datagram(net, skb, parts, 0, min(length, call.size))
            if not peek:
                net.consume_skb(skb)
        else:
            skb_hand_over(net, skb, parts)
    except PoolError as e:
        if peek:
            del sk.sk_receive_queue[0]
        net.kfree_skb(skb, "SKBUS_STALE_PLACE", sk=sk.number)
        raise SysCallError(errno.EIO, str(e)) from e
    if net.tracing:
        net.trace("udp_recvmsg", skb, sk=sk.number, copied=parts.size)
    recv_return(net, call, parts, (sk.sk_family, cb.sport, cb.saddr), msg_flags, cmsgs)


def _recvmsg_again(net: SocketNet, call: RecvCall) -> None:
    sk = call.waits[0]
    if isinstance(sk, InetSock):
        udp_recvmsg(net, call, sk)


def udp_error_report(net: SocketNet, sk: InetSock, item: SkErrorReport) -> None:
    """`sk_error_report`: an ICMP error about a datagram of ours, for the next call."""
    sk.sk_err = item.err
    sk_wake(net, sk)


def udp_state_change(net: SocketNet, sk: InetSock, item: SkStateChange) -> None:
    """udp has no states of its own."""


def udp_write_space(net: SocketNet, sk: InetSock, item: SkWriteSpace) -> None:
    """What was posted has gone. For others, room is made by udp's answer to each."""
    assert isinstance(sk, UdpSock)
    udp_posted(net, sk, item.acked)


def udp_shutdown(net: SocketNet, sk: InetSock, how: int) -> None:
    """udp hears what is not wanted any more."""
    net.call("udp", TransportProto.shutdown, Shutdown(sk.number, how))


def udp_lib_close(net: SocketNet, sk: InetSock, call: Call | None) -> None:
    """`udp_lib_close`: at once, whatever is unread; but posted datagrams go out before."""
    assert isinstance(sk, UdpSock)
    if sk.posted:
        sk.closing = lambda: udp_lib_close(net, sk, call)
        return
    unread = sk.sk_rmem_alloc
    udp_flush_pending_frames(net, sk)
    purge_receive_queue(net, sk)
    net.call("udp", TransportProto.close, Close(sk.number, unread, -1))
    sk_free(net, sk)
    if call is not None:
        sys_return(net, call, 0)


def udp_setsockopt(
    net: SocketNet, call: Call, sk: InetSock, level: int, optname: int, optval: bytes
) -> None:
    """`udp_setsockopt`: udp decides; what concerns received datagrams, and corking, is here."""
    if level not in sk.sk_prot.levels:
        raise SysCallError(errno.ENOPROTOOPT)
    assert isinstance(sk, UdpSock)
    if level == uapi.SOL_IP and ip_cmsg_setsockopt(net, sk, optname, optval):
        sys_return(net, call, 0)
        return

    def answered(net: SocketNet, err: int, value: Any) -> None:
        if level == uapi.SOL_IP and optname in MEMBERSHIP:
            sk.mc_list = decode_mc_list(value)
        elif not err:
            sk_set_option(sk, level, optname, optval)
            if level == uapi.SOL_UDP:
                udp_lib_setsockopt(net, sk, optname, optval)
        sys_return(net, call, err)

    transport_call(
        net,
        sk,
        TransportProto.setsockopt,
        lambda req: Setsockopt(sk.number, req, level, optname, optval),
        answered,
    )


def udp_lib_setsockopt(net: SocketNet, sk: UdpSock, optname: int, optval: bytes) -> None:
    """`udp_lib_setsockopt`, the socket layer's part: UDP_CORK, UDP_GRO."""
    on = bool(int_value(optval))
    if optname == uapi.UDP_CORK:
        sk.corkflag = on
        if not on:
            udp_push_pending_frames(net, sk, None)
    elif optname == uapi.UDP_GRO:
        sk.set_cmsg(UDP_CMSG_GRO, on)


def udp_getsockopt(
    net: SocketNet, call: Call, sk: InetSock, level: int, optname: int, optlen: int
) -> None:
    """`udp_getsockopt`: udp knows."""
    if level not in sk.sk_prot.levels:
        raise SysCallError(errno.EOPNOTSUPP)
    if answer_cmsg_getsockopt(net, call, sk, level, optname, optlen):
        return

    def answered(net: SocketNet, err: int, value: Any) -> None:
        if not err and not isinstance(value, bytes):
            err = errno.ENOPROTOOPT
        sys_return(net, call, err, None if err else value[:optlen])

    transport_call(
        net,
        sk,
        TransportProto.getsockopt,
        lambda req: Getsockopt(sk.number, req, level, optname, optlen),
        answered,
    )


def datagram_poll(net: SocketNet, sk: InetSock) -> int:
    """`datagram_poll`: which events are there."""
    mask = 0
    if sk.sk_err or sk.sk_error_queue:
        mask |= uapi.POLLERR
    if sk.sk_shutdown & uapi.RCV_SHUTDOWN:
        mask |= uapi.POLLRDHUP | uapi.POLLIN | uapi.POLLRDNORM
    if sk.sk_shutdown == uapi.SHUTDOWN_MASK:
        mask |= uapi.POLLHUP
    if sk.sk_receive_queue:
        mask |= uapi.POLLIN | uapi.POLLRDNORM
    if 2 * sk.sk_wmem_queued < sk.sk_sndbuf:
        mask |= uapi.POLLOUT | uapi.POLLWRNORM
    return mask


def udp_restart(net: SocketNet, sk: InetSock) -> None:
    """udp has been restarted: it is told of the socket, its port and its peer anew."""
    assert isinstance(sk, UdpSock)
    sk.sk_wmem_queued = sk.posted = 0
    if sk.closing is not None:
        sk.closing()
        return
    net.call("udp", TransportProto.init, init_sock(sk))
    for (level, optname), optval in sk.options.items():
        net.call("udp", TransportProto.setsockopt, Setsockopt(sk.number, 0, level, optname, optval))
    for optname, optval in restore_options(sk.mc_list):
        net.call(
            "udp", TransportProto.setsockopt, Setsockopt(sk.number, 0, uapi.SOL_IP, optname, optval)
        )
    if sk.inet_num:
        reuse = sk.sk_reuse | sk.sk_reuseport << 1
        item = GetPort(sk.number, 0, sk.inet_rcv_saddr, sk.inet_num, reuse, sk.sk_bound_dev_if)
        net.call("udp", TransportProto.bind, item)
    if sk.sk_state == uapi.TCP_ESTABLISHED:
        item2 = Connect(sk.number, 0, sk.inet_daddr, sk.inet_dport)
        net.call("udp", TransportProto.connect, item2)


UDP_PROT: Final[Proto] = Proto(
    name="UDP",
    process="udp",
    obj=UdpSock,
    init=udp_init_sock,
    close=udp_lib_close,
    get_port=udp_get_port,
    connect=ip4_datagram_connect,
    disconnect=udp_disconnect,
    sendmsg=udp_sendmsg,
    recvmsg=udp_recvmsg,
    shutdown=udp_shutdown,
    setsockopt=udp_setsockopt,
    getsockopt=udp_getsockopt,
    poll=datagram_poll,
    data_ready=udp_data_ready,
    error_report=udp_error_report,
    state_change=udp_state_change,
    write_space=udp_write_space,
    restart=udp_restart,
    levels=frozenset({uapi.SOL_IP, uapi.SOL_UDP}),
)

UDPLITE_PROT: Final[Proto] = replace(
    UDP_PROT,
    name="UDP-Lite",
    levels=frozenset({uapi.SOL_IP, uapi.SOL_UDP, uapi.SOL_UDPLITE}),
)
"""`udplite_prot`: the same functions, with a checksum that may cover a part (RFC 3828)."""
