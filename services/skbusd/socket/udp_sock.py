# SPDX-License-Identifier: MIT
"""UDP as the socket layer sees it: `udp_prot` (`net/ipv4/udp.c`, `datagram.c`, the parts that run
on behalf of an application).

Called by af_inet.py through `sk.sk_prot`, and by core.py with udp's reports. Speaks to the process
"udp" by the entries of `skbus.core.abi`. RFC 768, RFC 1122 4.1.
"""

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from skbus.core.abi import (
    Close,
    Connect,
    DataReadyCb,
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
from skbus.inet.mcast import MEMBERSHIP, decode_mc_list
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
    udp_first_len,
    udp_recvmmsg,
    udp_singles,
    udp_split_first,
    udp_told,
)
from skbusd.socket.ip_sockglue import (
    NO_COOKIE,
    UDP_CMSG_GRO,
    IpcmCookie,
    ip_cmsg_recv,
    ip_cmsg_send,
    ip_cmsg_setsockopt,
    ip_recv_error,
    sock_recv_cmsgs,
)
from skbusd.socket.msghdr import Cmsg
from skbusd.socket.netns import SocketNet
from skbusd.socket.post import udp_posted
from skbusd.socket.proto import (
    Proto,
    Result,
    proto_disconnect,
    proto_get_port,
    proto_getsockopt,
    proto_init,
    proto_replay,
    sk_intent,
)
from skbusd.socket.recv import Parts, recv_return, skb_copy_datagram, skb_hand_over, skb_relieve
from skbusd.socket.request import new_request
from skbusd.socket.sock import (
    PendingFrames,
    UdpSock,
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
"""Protocol -> the first letters of its counters' names."""


def udp_init_sock(net: SocketNet, sk: UdpSock) -> None:
    """`udp_init_sock`: udp hears of the socket."""
    if net.tracing:
        net.trace("udp_init_sock", sk=sk.number)
    proto_init(net, sk)


def ip4_datagram_connect(net: SocketNet, sk: UdpSock, addr: bytes, port: int, then: Result) -> None:
    """`ip4_datagram_connect`: the peer's address, from now on. udp also chooses a port where there
    is none."""

    def connected(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            sk.inet_daddr = addr
            sk.inet_dport = port
            sk.sk_state = uapi.TCP_ESTABLISHED
            sk.inet_saddr = value.addr
            sk.inet_sport = sk.inet_num = value.port
        then(net, err, value)

    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.connect,
        lambda number, req: Connect(number, req, addr, port),
        connected,
    )


def inet_dgram_connect(net: SocketNet, sk: UdpSock, addr: bytes, port: int, then: Result) -> None:
    """The part of `inet_dgram_connect` before `sk_prot.connect`: a port of the transport's choice,
    where there is none yet."""
    if not sk.inet_num:
        inet_autobind(net, sk)
    ip4_datagram_connect(net, sk, addr, port, then)


def udp_disconnect(net: SocketNet, sk: UdpSock, then: Result | None) -> None:
    """`udp_disconnect`: no peer any more."""
    sk.inet_daddr = uapi.INADDR_ANY
    sk.inet_dport = 0
    sk.inet_saddr = sk.inet_rcv_saddr
    sk.sk_state = uapi.TCP_CLOSE
    proto_disconnect(net, sk, then)


def inet_autobind(net: SocketNet, sk: UdpSock) -> None:
    """`inet_autobind`: a port of the transport's choice, before the first datagram."""
    sk.sk_prot.get_port(net, sk, uapi.INADDR_ANY, 0, lambda net, err, value: None)


def udp_sendmsg(net: SocketNet, call: SendCall, sk: UdpSock) -> None:
    """`udp_sendmsg`, the application's side: one datagram; udp answers whether it went out."""
    if call.flags & uapi.MSG_OOB:
        raise SysCallError(errno.EOPNOTSUPP)
    if sk.sk_err and not isinstance(call, PostCall):
        raise SysCallError(sock_error(sk))
    if sk.sk_shutdown & uapi.SEND_SHUTDOWN:
        raise SysCallError(errno.EPIPE)
    if call.size > UDP_MAX:
        raise SysCallError(errno.EMSGSIZE)
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
    if not sock_alloc_send(net, call, sk, udp_sendmsg):
        return
    frames = PendingFrames(addr, port, cookie)
    frames.chunks, frames.size = call.chunks, call.size
    ip_make_skb(net, call, sk, frames)


def sock_alloc_send(
    net: SocketNet,
    call: SendCall,
    sk: UdpSock,
    retry: Callable[[SocketNet, SendCall, UdpSock], None],
) -> bool:
    """`sock_alloc_send_skb`: is there room in the send buffer, and a port to send from? False: the
    call waits, behind calls that wait already."""
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
        # From here on the call waits for its answer, and must not be tried again.
        sk.sk_wq.remove(call)
        call.waits.clear()
        call.retry = None
    if not sk.inet_num:
        inet_autobind(net, sk)
    return True


def _sends_before(sk: UdpSock, call: SendCall, retry: object) -> bool:
    """Does an earlier datagram also wait for room?"""
    for other in sk.sk_wq:
        if other is call:
            return False
        if other.retry is retry:
            return True
    return False


def ip_make_skb(net: SocketNet, call: SendCall | None, sk: UdpSock, frames: PendingFrames) -> None:
    """`ip_make_skb`: the bytes of one datagram go to the transport; `call` hears the outcome."""
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
    """UDP_CORK, MSG_MORE: one more piece of a datagram (`ip_append_data`). A piece without either
    sends the datagram to the first piece's destination (`udp_push_pending_frames`)."""
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


def udp_flush_pending_frames(net: SocketNet, sk: UdpSock) -> None:
    """`udp_flush_pending_frames`: the datagram will never be sent."""
    if sk.pending is not None:
        for chunk in sk.pending.chunks:
            if type(chunk) is tuple:
                net.pool.free(chunk)
        sk.pending = None


def udp_send_skb(
    net: SocketNet,
    sk: UdpSock,
    head: bytes,
    frags: tuple[Frag, ...],
    make: Any,
    then: Result,
    cookie: IpcmCookie,
) -> None:
    """Hand one datagram to udp; `then` hears the outcome."""
    req = new_request(net, sk.sk_prot.process, TransportProto.sendmsg, then)
    cb = make(req)
    skb = net.alloc_skb(head, frags, cb=cb)
    skb.priority = sk.sk_priority if cookie.priority < 0 else cookie.priority
    skb.mark = sk.sk_mark if cookie.mark < 0 else cookie.mark
    if net.tracing:
        net.trace("udp_sendmsg", skb, sk=sk.number, len=skb.len)
    net.call_skb(sk.sk_prot.process, TransportProto.sendmsg, skb, cb)


def udp_data_ready(net: SocketNet, sk: UdpSock, skb: SkBuff, cb: DataReadyCb) -> None:
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


def _data_ready_singly(net: SocketNet, sk: UdpSock, skb: SkBuff, cb: DataReadyCb) -> None:
    """There is no room for all of a batch, so check for each datagram."""
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


def udp_recvmsg(net: SocketNet, call: RecvCall, sk: UdpSock) -> None:
    """`udp_recvmsg`: one datagram; bytes that do not fit are lost, and MSG_TRUNC says so."""
    if isinstance(call, RecvmmsgCall):
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
        sk_wait_event(net, call, sk, udp_recvmsg)
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


def udp_error_report(net: SocketNet, sk: UdpSock, item: SkErrorReport) -> None:
    """`sk_error_report`: an ICMP error about a datagram of ours, for the next call."""
    sk.sk_err = item.err
    sk_wake(net, sk)


def udp_state_change(net: SocketNet, sk: UdpSock, item: SkStateChange) -> None:
    """udp has no states of its own."""


def udp_write_space(net: SocketNet, sk: UdpSock, item: SkWriteSpace) -> None:
    """Posted datagrams have gone. For others, udp's answer to each makes room."""
    udp_posted(net, sk, item.acked)


def udp_shutdown(net: SocketNet, sk: UdpSock, how: int) -> None:
    """Tell the transport of the directions that are shut."""
    sk.sk_prot.tell(net, sk, TransportProto.shutdown, Shutdown(sk.number, how))


def udp_lib_close(net: SocketNet, sk: UdpSock, call: Call | None) -> None:
    """`udp_lib_close`: close at once, whatever is unread; but posted datagrams go out first."""
    if sk.posted:
        sk.closing = lambda: udp_lib_close(net, sk, call)
        return
    unread = sk.sk_rmem_alloc
    udp_flush_pending_frames(net, sk)
    purge_receive_queue(net, sk)
    sk.sk_prot.tell(net, sk, TransportProto.close, Close(sk.number, unread, -1))
    sk_free(net, sk)
    if call is not None:
        sys_return(net, call, 0)


def udp_setsockopt(
    net: SocketNet, call: Call, sk: UdpSock, level: int, optname: int, optval: bytes
) -> None:
    """`udp_setsockopt`: udp decides; options for received datagrams, and corking, are here."""
    if level not in sk.sk_prot.levels:
        raise SysCallError(errno.ENOPROTOOPT)
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

    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.setsockopt,
        lambda number, req: Setsockopt(number, req, level, optname, optval),
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
    net: SocketNet, call: Call, sk: UdpSock, level: int, optname: int, optlen: int
) -> None:
    """`udp_getsockopt`: ask udp."""
    if level not in sk.sk_prot.levels:
        raise SysCallError(errno.EOPNOTSUPP)
    proto_getsockopt(net, call, sk, level, optname, optlen)


def udp_ioctl(net: SocketNet, sk: UdpSock, cmd: int) -> int:
    """`udp_ioctl`: SIOCINQ, the bytes of the datagram that is read next; SIOCOUTQ."""
    if cmd == uapi.SIOCINQ:
        return udp_first_len(sk)
    if cmd == uapi.SIOCOUTQ:
        return sk.sk_wmem_queued
    raise SysCallError(errno.ENOTTY)


def datagram_poll(net: SocketNet, sk: UdpSock) -> int:
    """`datagram_poll`: the events that are there."""
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


def udp_restart(net: SocketNet, sk: UdpSock) -> None:
    """The transport has been restarted: tell it of the socket anew."""
    sk.sk_wmem_queued = sk.posted = 0
    if sk.closing is not None:
        sk.closing()
        return
    proto_replay(net, sk, sk.sk_prot.process, sk.number, sk_intent(sk))


UDP_PROT: Final[Proto[UdpSock]] = Proto(
    name="UDP",
    process="udp",
    obj=UdpSock,
    init=udp_init_sock,
    close=udp_lib_close,
    get_port=proto_get_port,
    connect=ip4_datagram_connect,
    disconnect=udp_disconnect,
    sendmsg=udp_sendmsg,
    recvmsg=udp_recvmsg,
    shutdown=udp_shutdown,
    setsockopt=udp_setsockopt,
    getsockopt=udp_getsockopt,
    poll=datagram_poll,
    ioctl=udp_ioctl,
    data_ready=udp_data_ready,
    error_report=udp_error_report,
    state_change=udp_state_change,
    write_space=udp_write_space,
    restart=udp_restart,
    levels=frozenset({uapi.SOL_IP, uapi.SOL_UDP}),
)

UDPLITE_PROT: Final[Proto[UdpSock]] = replace(
    UDP_PROT,
    name="UDP-Lite",
    levels=frozenset({uapi.SOL_IP, uapi.SOL_UDP, uapi.SOL_UDPLITE}),
)
"""`udplite_prot`: the same functions, with a checksum that may cover a part (RFC 3828)."""


def datagram_prot(name: str, process: str, *, owner: str = "", **functions: Any) -> Proto[UdpSock]:
    """The struct proto of any datagram transport, served by `process`. owner: the plug-in's module.
    functions: those that differ from UDP's."""
    shared = replace(
        UDP_PROT,
        name=name,
        process=process,
        init=proto_init,
        connect=inet_dgram_connect,
        levels=frozenset(),
        owner=owner,
    )
    return replace(shared, **functions)
