# SPDX-License-Identifier: MIT
"""The socket layer's core: requests of applications in, calls to transports out, and back.

The generic shell drives it with transports' reports (`entries`), router.py or a simulation with
applications' requests: `client_up`, `request`, `poll_open`, `client_gone`. Replies wait in
`net.replies`, changes for poll descriptors in `net.polls.dirty`, until the shell takes them.
"""

import errno
from collections.abc import Mapping
from typing import Final

from skbus.core.abi import (
    DataReadyCb,
    ProtoUnregister,
    Recvmsg,
    ReqskQueueAdd,
    SkErrorReport,
    SkStateChange,
    SkWriteSpace,
    SockErrCb,
    TcpDone,
    TcpFin,
    TcpRcvqAsk,
)
from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.initcall import InitError, unwind
from skbus.core.interfaces import SkCallbacks, TransportProto
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import (
    CLIENT_ID_LEN,
    MAX_IDENTITY,
    POSTED,
    Request,
    SysCallError,
    decode_request,
    encode_reply,
)
from skbus.core.timer import Timer
from skbusd.socket import inet_connection_sock, ip_sockglue, tcp_shards, tcp_sock, uapi
from skbusd.socket.af_inet import inet_init
from skbusd.socket.call import CALL_TYPES, Call, sys_return
from skbusd.socket.datagram import recvmmsg_ready
from skbusd.socket.files import (
    MAX_CALLS,
    MAX_DEFERRED,
    NOBODY,
    Client,
    Cred,
    Deferred,
    sockfd_lookup,
    sweep,
)
from skbusd.socket.kthread import run_kthreads
from skbusd.socket.netns import SocketNet
from skbusd.socket.post import posts_again, sock_posts
from skbusd.socket.proc import proc_net
from skbusd.socket.request import requests_lost, sk_ret
from skbusd.socket.sock import TcpSock
from skbusd.socket.sock_init import REGION_GRACE, SOCK_INIT, sock_init
from skbusd.socket.socket import (
    Socket,
    do_syscall,
    sock_poll,
    sock_release,
)
from skbusd.socket.tcp_post import GIVERS, tcp_post, with_credit

# ---- what transports report ---------------------------------------------------------------


def sk_state_change(net: SocketNet, item: SkStateChange) -> None:
    """`sk->sk_state_change`"""
    sk = net.socks.get(item.sk)
    if sk is not None:
        if net.tracing:
            name = uapi.TCP_STATES[item.state] if 0 < item.state < 12 else item.state
            net.trace("sk_state_change", sk=item.sk, state=name)
        sk.sk_prot.state_change(net, sk, item)


def inet_csk_reqsk_queue_add(net: SocketNet, item: ReqskQueueAdd) -> None:
    """A connection waits to be accepted."""
    inet_connection_sock.inet_csk_reqsk_queue_add(net, item)


def sk_write_space(net: SocketNet, item: SkWriteSpace) -> None:
    """`sk->sk_write_space`"""
    sk = net.socks.get(item.sk)
    if sk is not None:
        sk.sk_prot.write_space(net, sk, item)


def sk_error_report(net: SocketNet, item: SkErrorReport) -> None:
    """`sk->sk_error_report`"""
    sk = net.socks.get(item.sk)
    if sk is not None:
        if net.tracing:
            net.trace("sk_error_report", sk=item.sk, err=errno.errorcode.get(item.err, item.err))
        sk.sk_prot.error_report(net, sk, item)


def tcp_rcvq_ask(net: SocketNet, item: TcpRcvqAsk) -> None:
    """tcp wants to know how much is still to be read."""
    sk = net.socks.get(item.sk)
    if isinstance(sk, TcpSock) and sk.rcv_told:
        net.reads.taken[sk] = None


def tcp_fin(net: SocketNet, item: TcpFin) -> None:
    """The peer has sent all it had."""
    sk = net.socks.get(item.sk)
    if isinstance(sk, TcpSock):
        tcp_sock.tcp_fin(net, sk)


def tcp_done(net: SocketNet, item: TcpDone) -> None:
    """tcp has nothing more to do with it."""
    sk = net.socks.get(item.sk)
    if isinstance(sk, TcpSock):
        tcp_sock.tcp_done(net, sk)


def sk_data_ready(net: SocketNet, skb: SkBuff) -> None:
    """`sk->sk_data_ready`"""
    cb = skb.cb
    assert isinstance(cb, DataReadyCb)
    sk = net.socks.get(cb.sk)
    if sk is None or (sk.sk_socket is None and getattr(sk, "parent", None) is None):
        net.kfree_skb(skb, "TCP_CLOSE" if cb.sk > 0xFFFFFFFF or sk else "NO_SOCKET", sk=cb.sk)
        return
    if net.tracing:
        net.trace("sk_data_ready", skb, sk=cb.sk, len=skb.len)
    sk.sk_prot.data_ready(net, sk, skb, cb)


def sock_queue_err_skb(net: SocketNet, skb: SkBuff) -> None:
    """An error for a socket's error queue."""
    cb = skb.cb
    assert isinstance(cb, SockErrCb)
    sk = net.socks.get(cb.sk)
    if sk is None or sk.sk_socket is None:
        net.kfree_skb(skb, "NO_SOCKET", sk=cb.sk)
        return
    if net.tracing:
        net.trace("sock_queue_err_skb", skb, sk=cb.sk, err=cb.ee_errno)
    ip_sockglue.sock_queue_err_skb(net, sk, skb)


def proto_unregister(net: SocketNet, item: ProtoUnregister) -> None:
    """A transport is gone for good: its requests and sockets end, and no barrier goes there."""
    if item.process not in net.peers:
        return
    net.peers.discard(item.process)
    net.info("proto_unregister", process=item.process)
    transport_reset(net, item.process)


def transport_reset(net: SocketNet, process: str) -> None:
    """A transport has forgotten our sockets, or is gone."""
    requests_lost(net, process)
    for sk in tuple(net.socks.values()):
        if sk.sk_prot.process == process and sk.number in net.socks:
            sk.sk_prot.restart(net, sk)
    if net.shards.replicas:
        tcp_shards.shard_restarted(net, process)


SERVES: Final[dict[AnyEntry, Handler]] = serve(
    SkCallbacks,
    SkCallbacks.sk_ret.by(sk_ret),
    SkCallbacks.sk_state_change.by(sk_state_change),
    SkCallbacks.sk_data_ready.by(sk_data_ready),
    SkCallbacks.sk_write_space.by(sk_write_space),
    SkCallbacks.sk_error_report.by(sk_error_report),
    SkCallbacks.sock_queue_err_skb.by(sock_queue_err_skb),
    SkCallbacks.inet_csk_reqsk_queue_add.by(inet_csk_reqsk_queue_add),
    SkCallbacks.tcp_rcvq_ask.by(tcp_rcvq_ask),
    SkCallbacks.tcp_fin.by(tcp_fin),
    SkCallbacks.tcp_done.by(tcp_done),
    SkCallbacks.proto_unregister.by(proto_unregister),
)


# ---- the core -----------------------------------------------------------------------------


def reply(net: SocketNet, call: Call, err: int, result: object, data: bytes) -> None:
    """End an application's call: leave its reply for the shell to send."""
    if call.req == POSTED:
        return
    if err and type(result) is not str:
        result = None
    elif call.credit and not err:
        result = with_credit(call, result)
    if call.client is None or not call.client.gone:
        net.replies.append((call.identity, encode_reply(call.req, err, result), data))


def refuse(net: SocketNet, identity: bytes, req: int, err: int, text: str | None) -> None:
    """Answer a request that is none. A post has no answer."""
    if req != POSTED:
        net.replies.append((identity, encode_reply(req, err, text), b""))


class SocketCore:
    """The socket layer (`skbus.core.net.Core`), and the side that applications see."""

    def __init__(self, net: SocketNet) -> None:
        self.net = net
        self.entries: Mapping[AnyEntry, Handler] = SERVES
        self._dying: dict[int, int] = {}
        self._region_timer: Timer[SocketNet] = Timer(self._check_regions)

    # ---- skbus.core.net.Core ------------------------------------------------------------------

    def start(self) -> None:
        """`sock_init`, then `inet_init`: families and protocols register themselves. InitError
        names the step that failed; those before it are taken back."""
        sock_init(self.net)
        try:
            inet_init(self.net)
        except InitError:
            unwind(self.net, "sock_init", SOCK_INIT)
            raise
        tcp_shards.tcp_shards_init(self.net, tcp_sock.TCP_PROT)

    def peer_up(self, process: str) -> None:
        """A transport is up; if it was up before, it has forgotten our sockets."""
        net = self.net
        if process not in net.peers:
            net.peers.add(process)
            return
        net.warning("peer_up", process=process, text="restarted: its connections are lost")
        transport_reset(net, process)

    def idle(self) -> None:
        """The end of a batch: tell transports of taken bytes, find slots that came back."""
        net = self.net
        if net.kthreads is not None and net.kthreads.runqueue:
            run_kthreads(net)
        reads = net.reads
        if reads.recvmmsg:
            recvmmsg_ready(net)
        if net.posts.stalled:
            posts_again(net)
        if net.accepts.pending and net.outbox:
            inet_connection_sock.flush_accepts(net)
        if reads.waiting and (reads.taken or net.outbox):
            reads.taken.update(reads.waiting)
            reads.waiting.clear()
        if reads.taken:
            for sk in reads.taken:
                told = sk.rcv_told
                if told < 0:  # bytes that tcp knows of were unread
                    told = 0
                item = Recvmsg(sk.number, told, isinstance(sk, TcpSock) and sk.told_waiting)
                net.call(sk.sk_prot.process, TransportProto.recvmsg, item)
                sk.rcv_told -= told
            reads.taken.clear()

    def held(self) -> int:
        """skbs in receive queues and error queues"""
        socks = self.net.socks.values()
        return sum(len(sk.sk_receive_queue) + len(sk.sk_error_queue or ()) for sk in socks)

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """No process is above; the transports that have said hello are below."""
        return [], sorted(self.net.peers)

    def status(self) -> dict[str, object]:
        """The values that `skbus status` shows."""
        net = self.net
        states: dict[str, int] = {}
        for sk in net.socks.values():
            name = f"{sk.sk_prot.name} {uapi.TCP_STATES[sk.sk_state]}"
            states[name] = states.get(name, 0) + 1
        return {
            "clients": len(net.clients),
            "files": net.limits.nr_files,
            "sockets": net.limits.sockets_in_use,
            "families": [f for f, ops in enumerate(net.net_families) if ops is not None],
            "protocols": sorted(net.proto_list),
            "socks": len(net.socks),
            "states": states,
            "orphans": sum(1 for sk in net.socks.values() if sk.sk_socket is None),
            "waiting": sum(len(c.calls) for c in net.clients.values()),
            "requests": len(net.requests.waiting),
            "rmem": sum(sk.sk_rmem_alloc for sk in net.socks.values()),
            "wmem": sum(sk.sk_wmem_queued for sk in net.socks.values()),
            "lent": sum(len(c.lent) for c in net.clients.values()),
            "dying_regions": len(self._dying),
        }

    def proc(self, name: str) -> object:
        """This process's part of a file of /proc/net (`skbus.inet.proc`)."""
        return proc_net(self.net, name)

    # ---- applications --------------------------------------------------------------------

    def client_up(self, id: bytes, cred: Cred = NOBODY) -> bool:
        """A process has made itself known; False where its id is invalid or taken."""
        if len(id) != CLIENT_ID_LEN or id in self.net.clients:
            return False
        self.net.clients[id] = Client(id, cred)
        return True

    def client_gone(self, id: bytes) -> None:
        """A process has ended: so do its calls, its descriptors, and slots lent to it."""
        net = self.net
        client = net.clients.pop(id, None)
        if client is None:
            return
        if client.post_data:
            sock_posts(net, client, True)
        client.gone = True
        for call in tuple(client.calls.values()):
            sys_return(net, call, errno.EINTR)
        files = len(client.fdt)
        for sock in tuple(client.fdt.values()):
            sock.f_count -= 1
            net.limits.nr_files -= 1
            if not sock.f_count:
                sock_release(net, sock, None)
        client.fdt.clear()
        swept = sweep(net, client)
        for number in client.regions:
            self._dying[number] = net.now
        if client.regions and not self._region_timer.pending():
            net.mod_timer(self._region_timer, net.now + REGION_GRACE)
        if net.tracing:
            net.trace("client_gone", files=files, swept=swept)

    def request(self, identity: bytes, meta: bytes, data: bytes) -> None:
        """Take a request. Any fault in it is answered, never raised."""
        net = self.net
        net.calls += 1
        try:
            request = decode_request(meta, data)
        except SysCallError as e:
            refuse(net, identity, e.req, e.errno, e.text)
            return
        client = net.clients.get(identity[:CLIENT_ID_LEN])
        if client is None or len(identity) > MAX_IDENTITY:
            text = "announce the client on the life connection first"
            refuse(net, identity, request.req, errno.ENOTCONN, text)
        elif request.posted <= client.posts:
            self._carry_out(client, identity, request, data)
            if client.deferred and request.req == POSTED:
                self._carry_out_deferred(client)
        elif len(client.deferred) < MAX_DEFERRED:
            client.deferred.append(Deferred(request.posted, identity, request, data))
        else:
            text = f"{request.posted} posts came before it, says the request, not {client.posts}"
            refuse(net, identity, request.req, errno.EPROTO, text)

    def _carry_out(self, client: Client, identity: bytes, request: Request, data: bytes) -> None:
        net = self.net
        req, posted, name, args = request
        if req == POSTED:
            client.posts += 1
            if name == "post":
                tcp_post(net, client, args[0], data)
                return
        elif client.calls:
            if (identity, req) in client.calls:
                text = f"request {req} is still being worked on"
                refuse(net, identity, req, errno.EINVAL, text)
                return
            if len(client.calls) >= MAX_CALLS:
                refuse(net, identity, req, errno.ENOBUFS, f"more than {MAX_CALLS} calls wait")
                return
        call = CALL_TYPES.get(name, Call)(reply, client, identity, req, name)
        call.credit = posted >= 0 and name in GIVERS
        do_syscall(net, call, args, data)

    def _carry_out_deferred(self, client: Client) -> None:
        """Posts have come: take the requests that waited for them, in their order."""
        more = True
        while more:
            more = False
            waiting, client.deferred = client.deferred, []
            for one in waiting:
                if one.posted > client.posts:
                    client.deferred.append(one)
                else:
                    more = True
                    self._carry_out(client, one.identity, one.request, one.data)

    def posts(self, id: bytes, data: bytes, force: bool) -> bool:
        """A client has posted these datagrams (`skbus.core.syscall.POST`). force: take them
        whatever room there is. True: bring no more until net.posts.resumed says so."""
        client = self.net.clients.get(id)
        if client is None:
            return False
        client.post_data += data
        return sock_posts(self.net, client, force)

    def poll_open(self, id: bytes, fd: int) -> Socket:
        """The client wants a real descriptor that shows fd's state. EBADF, ENOTCONN."""
        client = self.net.clients.get(id)
        if client is None:
            raise SysCallError(errno.ENOTCONN)
        sock = sockfd_lookup(client, fd)
        sock.polled = True
        self.net.polls.dirty[sock] = None
        return sock

    def poll_mask(self, sock: Socket) -> int:
        """The events that a real descriptor shall show now."""
        return sock_poll(self.net, sock)

    def _check_regions(self, net: SocketNet) -> None:
        """Give up dead clients' regions when nothing of them is under way any more."""
        for number, since in tuple(self._dying.items()):
            if number not in net.regions.refs and net.now - since >= REGION_GRACE:
                del self._dying[number]
                for key in [key for key in net.regions.pressure if key[0] == number]:
                    del net.regions.pressure[key]
                net.regions.gone.append(number)
        if self._dying:
            net.mod_timer(self._region_timer, net.now + REGION_GRACE)
