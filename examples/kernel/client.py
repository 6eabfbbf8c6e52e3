# SPDX-License-Identifier: MIT
"""A client inside the kernel: it resolves a name, connects, and fetches a page.

skbus insmod examples/kernel/client.py url=http://www.example.test:8000/ nameserver=10.77.0.1
skbus insmod examples/kernel/client.py url=http://www.example.test:8000/ hosts=/etc/hosts
skbus logs

The page is in the socket process's log, under the event `kwget`.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from skbus.core import uapi
from skbusd.socket.dns_resolver import dns_query, in4_pton, parse_hosts
from skbusd.socket.kernel import (
    MsgHdr,
    kernel_connect,
    kernel_getpeername,
    kernel_recvmsg,
    kernel_release,
    kernel_sendmsg,
)
from skbusd.socket.kthread import TaskStruct, kthread_run, kthread_should_stop, kthread_stop
from skbusd.socket.netns import SocketNet
from skbusd.socket.socket import sock_create

TIMEOUT = 20_000_000_000


class Fetch:
    """One fetch: the request, and its answer."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.hosts: dict[str, bytes] = {}
        self.server: bytes | None = None
        self.server_port = 53
        self.thread: TaskStruct | None = None
        self.answer = bytearray()
        self.done = False


async def init_module(net: SocketNet, params: Mapping[str, str]) -> Fetch:
    """Fetch `url`; names from `nameserver` (`dnsport`, 53) or the file `hosts`."""
    url = urlsplit(params["url"])
    fetch = Fetch(url.hostname or "", url.port or 80, url.path or "/")
    name, _, port = params.get("nameserver", "").partition(":")
    fetch.server = in4_pton(name)
    fetch.server_port = int(port or 53)
    if "hosts" in params:
        fetch.hosts = parse_hosts(Path(params["hosts"]).read_text())
    fetch.thread = kthread_run(net, fetch_thread, fetch, "kwget")
    return fetch


async def cleanup_module(net: SocketNet, fetch: Fetch) -> None:
    """End the fetch, wherever it is."""
    if fetch.thread is not None:
        await kthread_stop(net, fetch.thread)


async def fetch_thread(net: SocketNet, fetch: Fetch) -> None:
    """Resolve, connect, ask, read to the end."""
    sock = sock_create(net, uapi.AF_INET, uapi.SOCK_STREAM, uapi.IPPROTO_TCP)
    assert sock.sk is not None
    sock.sk.sk_rcvtimeo = sock.sk.sk_sndtimeo = TIMEOUT
    try:
        addr = await dns_query(
            net, fetch.host, server=fetch.server, port=fetch.server_port, hosts=fetch.hosts
        )
        await kernel_connect(net, sock, (uapi.AF_INET, fetch.port, addr))
        _, port, peer = kernel_getpeername(net, sock)
        request = f"GET {fetch.path} HTTP/1.0\r\nHost: {fetch.host}\r\n\r\n".encode()
        await kernel_sendmsg(net, sock, MsgHdr(), [request], len(request))
        first, second = bytearray(512), bytearray(65536)
        while not kthread_should_stop(net):
            n = await kernel_recvmsg(net, sock, MsgHdr(), [first, second], 66048, 0)
            if not n:
                break
            fetch.answer += (first + second)[:n]
        net.info(
            "kwget",
            host=fetch.host,
            peer=f"{'.'.join(map(str, peer))}:{port}",
            status=fetch.answer.partition(b"\r\n")[0].decode("ascii", "replace"),
            size=len(fetch.answer),
        )
        fetch.done = True
    except OSError as e:
        net.warning("kwget", host=fetch.host, error=str(e))
    finally:
        kernel_release(net, sock)
