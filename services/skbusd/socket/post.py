# SPDX-License-Identifier: MIT
"""Posts: datagrams that an application's library sends without waiting for a reply
(skbus.app.client).

    client: write to its post pipe
    router.py: reads all that is there -> core.posts -> udp_post -> udp: udp_sendmsg

Datagrams of one size to one place, from one read, go to udp as one skb (SKB_GSO_BATCH). nic, or the
kernel behind it, cuts it into datagrams. Nothing waits for more to come. Where the send buffer is
full, the client is *stalled*: its pipe is left alone until there is room. When the pipe is also
full, the client's library falls back to calls that wait. All posts of a client are taken before
anything else that it asks for, whatever the room.
"""

import errno
from typing import Any, Final

from skbus.core.abi import UdpSendmsgCb
from skbus.core.interfaces import TransportProto
from skbus.core.skbuff import SKB_GSO_BATCH, SKB_GSO_UDP_L4, Frag
from skbus.core.syscall import POST
from skbusd.socket import uapi
from skbusd.socket.call import Call, PostCall, SendCall, attempt, sk_wake
from skbusd.socket.files import Client
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import UdpSock
from skbusd.socket.socket import sock_write

SKB_TRUESIZE: Final = 256
"""Charged to the send buffer with each datagram."""
BATCH_MAX: Final = 128
"""Datagrams in one skb (`UDP_MAX_SEGMENTS`)."""
BATCH_BYTES: Final = 65000
"""Payload in one skb; an IPv4 packet has no more."""
HEAD_MAX: Final = 16384
"""Payload up to this travels in the skb's head."""


def sock_posts(net: SocketNet, client: Client, force: bool) -> bool:
    """Send the client's posts (client.post_data). Those that must wait for room, or are not
    complete, stay there. force: none waits. Returns whether some do."""
    data = client.post_data
    end = len(data)
    at = 0
    client.post_stalled = False
    while end - at >= POST.size:
        size, port, fd, addr = POST.unpack_from(data, at)
        stride = POST.size + size
        if at + stride > end:
            break
        sock = client.fdt.get(fd)
        sk: Any = sock.sk if sock is not None and sock.type == uapi.SOCK_DGRAM else None
        n = 1
        if isinstance(sk, UdpSock):
            count = _same(data, at, stride, size, sk)
            n = count if force else _room(sk, size, count)
            if not n:
                client.post_stalled = True
                break
            if _plain(sk, port):
                udp_post(net, sk, data, at, size, n, port, addr)
            else:
                n = 1
                _post_call(net, client, sock, data[at + POST.size : at + stride], port, addr)
        at += n * stride
    client.post_data = data[at:]
    if client.post_stalled:
        net.posts.stalled[client] = None
    return client.post_stalled


def posts_again(net: SocketNet) -> None:
    """The end of a batch: take the posts of stalled clients for which there is room by now."""
    stalled, net.posts.stalled = net.posts.stalled, {}
    for client in stalled:
        if client.post_stalled and not client.gone and not sock_posts(net, client, False):
            net.posts.resumed.append(client.id)


def _same(data: bytes, at: int, stride: int, size: int, sk: UdpSock) -> int:
    """The number of posts from `at` on with the same header, so that they can go as one."""
    if not size or sk.sk_prot.name != "UDP":
        return 1
    most = min(BATCH_MAX, BATCH_BYTES // size, (len(data) - at) // stride)
    header = data[at : at + POST.size]
    n = 1
    at += stride
    while n < most and data.startswith(header, at):
        n += 1
        at += stride
    return n


def _room(sk: UdpSock, size: int, count: int) -> int:
    """The part of `count` datagrams that the send buffer has room for; none where a call waits for
    room."""
    queued = sk.sk_wmem_queued
    if not queued:
        return count if count == 1 else max(min(count, sk.sk_sndbuf // (size + SKB_TRUESIZE)), 1)
    if sk.sk_wq and any(isinstance(call, SendCall) and call.waits for call in sk.sk_wq):
        return 0
    return max(min(count, (sk.sk_sndbuf - queued) // (size + SKB_TRUESIZE)), 0)


def _plain(sk: UdpSock, port: int) -> bool:
    """Is it just bytes, a port and a destination? An ordinary call decides all else."""
    return (
        sk.sk_prot.process == "udp"
        and sk.inet_num != 0
        and sk.pending is None
        and not sk.corkflag
        and not sk.sk_shutdown & uapi.SEND_SHUTDOWN
        and (port != 0 or sk.sk_state == uapi.TCP_ESTABLISHED)
    )


def udp_post(
    net: SocketNet, sk: UdpSock, data: bytes, at: int, size: int, n: int, port: int, addr: bytes
) -> None:
    """n datagrams of `size` bytes each from data[at:], each with its header, go to udp as one skb.
    Errors come by `sk_error_report`, room by `sk_write_space`."""
    if n == 1:
        at += POST.size
        payload = data[at : at + size]
    else:
        stride = POST.size + size
        first = at + POST.size
        payload = b"".join([data[i : i + size] for i in range(first, first + n * stride, stride)])
    frags: tuple[Frag, ...] = ()
    if len(payload) > HEAD_MAX:
        frags = ((net.alloc.put(payload) if net.alloc else None) or payload,)
        payload = b""
    skb = net.alloc_skb(payload, frags)
    cb = skb.cb = UdpSendmsgCb(sk.number, 0, addr if port else b"", port, 0, -1, 0)
    skb.priority = sk.sk_priority
    skb.mark = sk.sk_mark
    if n > 1:
        skb.gso_size = size
        skb.gso_segs = n
        skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_BATCH
    charge = n * (size + SKB_TRUESIZE)
    sk.sk_wmem_queued += charge
    sk.posted += charge
    if net.tracing:
        net.trace("udp_sendmsg", skb, sk=sk.number, len=skb.len, gso_size=skb.gso_size)
    net.call_skb("udp", TransportProto.sendmsg, skb, cb)


def udp_posted(net: SocketNet, sk: UdpSock, done: int) -> None:
    """Posts have gone, or were refused: there is room again, and a close may go on."""
    done = min(done, sk.posted)
    sk.posted -= done
    sk.sk_wmem_queued -= done
    sk_wake(net, sk)
    if sk.closing is not None and not sk.posted:
        sk.closing()


def _post_call(
    net: SocketNet, client: Client, sock: Any, payload: bytes, port: int, addr: bytes
) -> None:
    """Send a post as an ordinary sendmsg, with nobody to hear of it."""
    call = PostCall(post_done, client)
    call.sock = sock
    if payload:
        call.chunks.append(payload)
    call.size = len(payload)
    call.addr = (uapi.AF_INET, port, addr) if port else None
    net.current = client

    def function(net: SocketNet, call: PostCall) -> None:
        sock_write(net, call, sock)

    attempt(net, call, function)


def post_done(net: SocketNet, call: Call, err: int, result: object, data: bytes) -> None:
    """A post ends without an answer; the socket's next call tells an error, as one from ICMP."""
    sk = call.sock.sk if call.sock is not None else None
    if err and err != errno.EINTR and isinstance(sk, UdpSock):
        sk.sk_err = err
        sk_wake(net, sk)
