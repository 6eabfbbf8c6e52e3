# SPDX-License-Identifier: MIT
"""A server inside the kernel: no application, no descriptors, no system calls.

skbus lab up --module "examples/kernel/server.py port=8080"
skbus lab exec -- curl http://10.77.0.2:8080/
skbus insmod examples/kernel/server.py port=8081        (in a stack that is up already)
skbus lsmod; skbus rmmod server

One thread listens. It stands in the listener's wait queue and sleeps until `sk_wake` finds it
there. Then it accepts all waiting connections, each into a socket from `sock_create_lite`, and
starts a thread for each. `cleanup_module` sets their shutdown flags.
"""

from collections.abc import Mapping

from skbus.core import uapi
from skbusd.socket.kernel import (
    MsgHdr,
    inet_accept,
    kernel_recvmsg,
    kernel_release,
    kernel_sendmsg,
    kernel_sock_shutdown,
    sock_create_lite,
)
from skbusd.socket.kthread import (
    TASK_INTERRUPTIBLE,
    TASK_RUNNING,
    TaskStruct,
    WaitQueueEntry,
    add_wait_queue,
    current,
    init_waitqueue_entry,
    kernel_call,
    kthread_run,
    kthread_should_stop,
    kthread_stop,
    remove_wait_queue,
    schedule,
    set_current_state,
    sk_sleep,
)
from skbusd.socket.netns import SocketNet
from skbusd.socket.socket import Socket, sock_create

BACKLOG = 16
REQUEST_MAX = 8192


class Server:
    """This module's state: its listener and its threads."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.thread: TaskStruct | None = None
        self.workers: dict[TaskStruct, None] = {}
        self.served = 0


async def init_module(net: SocketNet, params: Mapping[str, str]) -> Server:
    """Listen on `port` (8080), and start the thread that accepts."""
    port = int(params.get("port", "8080"))
    sock = sock_create(net, uapi.AF_INET, uapi.SOCK_STREAM, uapi.IPPROTO_TCP)
    if sock.sk is not None:
        sock.sk.sk_reuse = 1
    addr = (uapi.AF_INET, port, uapi.INADDR_ANY)
    try:
        # sock->ops->bind() and listen() of C; kernel_bind and kernel_listen do just this
        await kernel_call(net, lambda net, call: sock.ops.bind(net, call, sock, addr))
        await kernel_call(net, lambda net, call: sock.ops.listen(net, call, sock, BACKLOG))
    except OSError:
        kernel_release(net, sock)
        raise
    server = Server(sock)
    server.thread = kthread_run(net, accept_thread, server, "khttpd")
    return server


async def cleanup_module(net: SocketNet, server: Server) -> None:
    """Set the shutdown flag of all threads; then the listener goes."""
    if server.thread is not None:
        await kthread_stop(net, server.thread)
    for worker in tuple(server.workers):
        await kthread_stop(net, worker)
    kernel_release(net, server.sock)
    net.info("khttpd", text="stopped", served=server.served)


async def accept_thread(net: SocketNet, server: Server) -> None:
    """Sleep until a connection waits; accept without waiting; until the flag is set."""
    sock = server.sock
    assert sock.sk is not None
    wait = WaitQueueEntry()
    init_waitqueue_entry(wait, current(net))
    add_wait_queue(net, sk_sleep(sock.sk), wait)
    try:
        while not kthread_should_stop(net):
            set_current_state(net, TASK_INTERRUPTIBLE)
            if not sock.ops.poll(net, sock) & uapi.POLLIN:
                await schedule(net)
                continue
            set_current_state(net, TASK_RUNNING)
            newsock = sock_create_lite(net, uapi.AF_INET, sock.type, uapi.IPPROTO_TCP)
            try:
                await inet_accept(net, sock, newsock, uapi.O_NONBLOCK)
            except BlockingIOError:
                continue  # EAGAIN: the connection has gone again
            task = kthread_run(net, serve_thread, (server, newsock), "khttpd/worker")
            server.workers[task] = None
    finally:
        set_current_state(net, TASK_RUNNING)
        remove_wait_queue(net, sk_sleep(sock.sk), wait)


async def serve_thread(net: SocketNet, data: tuple[Server, Socket]) -> None:
    """One connection: a request's head, an answer, the end."""
    server, sock = data
    try:
        _, port, addr = sock.ops.getname(net, sock, True)
        peer = ".".join(map(str, addr))
        request = b""
        while b"\r\n\r\n" not in request and b"\n\n" not in request:
            buffer = bytearray(1024)
            n = await kernel_recvmsg(net, sock, MsgHdr(), [buffer], len(buffer), 0)
            request += buffer[:n]
            if not n or len(request) > REQUEST_MAX:
                break
        words = request.split(None, 2)
        if not words:
            return
        path = words[1].decode("ascii", "replace") if len(words) > 1 else "?"
        body = f"hello, {peer} port {port}: {path}, from the kernel\n".encode()
        head = (
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        await kernel_sendmsg(net, sock, MsgHdr(), [head, body], len(head) + len(body))
        await kernel_sock_shutdown(net, sock, 1)
        server.served += 1
        net.info("khttpd", peer=peer, port=port, path=path)
    except OSError as e:
        net.info("khttpd", error=str(e))
    finally:
        kernel_release(net, sock)
        server.workers.pop(current(net), None)
