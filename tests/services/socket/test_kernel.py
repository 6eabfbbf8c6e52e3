# SPDX-License-Identifier: MIT
"""Code inside the socket process: threads, wait queues, kernel sockets, modules; and the examples
of examples/kernel, in a simulation."""

import errno
import struct
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC, SEC
from skbus.testing import World
from skbusd.socket import dns_resolver, kernel, kmod, kthread, module
from skbusd.socket.call import sk_wake
from skbusd.socket.files import NOBODY, Client
from skbusd.socket.kthread import (
    TASK_INTERRUPTIBLE,
    WaitQueueEntry,
    add_wait_queue,
    cond_resched,
    current,
    init_waitqueue_entry,
    kthread_run,
    kthread_should_stop,
    kthread_stop,
    msleep,
    remove_wait_queue,
    schedule,
    schedule_timeout,
    set_current_state,
    sk_sleep,
)
from skbusd.socket.module import Module, ModuleError
from skbusd.socket.netns import SocketNet
from skbustest.host import SOCK_DGRAM, Host, SimSocket

EXAMPLES = Path(__file__).parents[3] / "examples" / "kernel"
ANY = (uapi.AF_INET, 0, uapi.INADDR_ANY)


def pair(seed: int = 1, trace: bool = False) -> tuple[World, Host, Host]:
    world = World(seed=seed, trace=trace)
    a = world.host("a", "10.0.0.1/24")
    b = world.host("b", "10.0.0.2/24")
    world.link(a, b, delay=1 * MSEC)
    return world, a, b


def run_thread(world: World, host: Host, threadfn: Any, data: Any = None) -> Any:
    """Run a kernel thread to its end; what it returned."""
    net = host.net("socket")
    task = kthread_run(net, threadfn, data, "test")
    host.processes["socket"].wake()
    for _ in range(1000):
        world.advance(10 * MSEC)
        if task.state == kthread.TASK_DEAD:
            break
    assert task.state == kthread.TASK_DEAD
    assert not task.oops
    return task.exit_code


def insmod(host: Host, name: str, **params: str) -> Module:
    words = [f"{key}={value}" for key, value in params.items()]
    loaded = kmod.request_module(host.net("socket"), " ".join((str(EXAMPLES / name), *words)))
    host.processes["socket"].wake()
    return loaded


def rmmod(world: World, host: Host, name: str) -> Module:
    gone = module.delete_module(host.net("socket"), name)
    host.processes["socket"].wake()
    world.advance(1 * SEC)
    return gone


def traced(host: Host, function: str) -> list[Any]:
    return [e[4] for e in host.events if e[1] == "socket" and e[2] == function]


def no_kernel_left(host: Host) -> None:
    net = host.net("socket")
    assert not net.modules
    assert not net.kthreads.tasks
    assert not net.kthreads.client.calls
    assert not [sk for sk in net.socks.values() if sk.sk_wq]


# ---- threads ------------------------------------------------------------------------------


def test_a_thread_is_root_whoever_called_last() -> None:
    world, a, _ = pair()
    net = a.net("socket")
    net.current = caller = Client(b"C" * 16, NOBODY)

    async def thread(net: SocketNet, data: object) -> list[bool]:
        return [net.capable("net_raw"), net.capable("net_admin")]

    assert run_thread(world, a, thread) == [True, True]
    assert net.current is caller


def test_a_thread_sleeps_until_its_time_is_over() -> None:
    world, a, _ = pair()

    async def sleeper(net: SocketNet, data: object) -> list[int]:
        set_current_state(net, TASK_INTERRUPTIBLE)
        begin = net.now
        left = await schedule_timeout(net, 300 * MSEC)
        await msleep(net, 50)
        return [left, net.now - begin]

    left, slept = run_thread(world, a, sleeper)
    assert left == 0
    assert 350 * MSEC <= slept < 355 * MSEC  # the timer wheel has ticks


def test_a_wake_up_before_schedule_is_not_lost() -> None:
    world, a, _ = pair()

    async def thread(net: SocketNet, data: object) -> str:
        set_current_state(net, TASK_INTERRUPTIBLE)
        kthread.wake_up_process(net, current(net))
        await schedule(net)
        return "on"

    assert run_thread(world, a, thread) == "on"


def test_threads_that_give_way_take_turns() -> None:
    world, a, _ = pair()
    order: list[str] = []

    async def worker(net: SocketNet, name: str) -> None:
        for _ in range(3):
            order.append(name)
            await cond_resched(net)

    net = a.net("socket")
    kthread_run(net, worker, "x", "x")
    kthread_run(net, worker, "y", "y")
    a.processes["socket"].wake()
    world.advance(1 * MSEC)
    assert order == ["x", "y"] * 3


def test_an_oops_ends_the_thread_and_nothing_else() -> None:
    world, a, _ = pair()
    net = a.net("socket")

    async def bad(net: SocketNet, data: object) -> None:
        raise ZeroDivisionError("oops")

    task = kthread_run(net, bad, None, "bad")
    kthread.run_kthreads(net)
    assert task.state == kthread.TASK_DEAD
    assert "ZeroDivisionError" in task.oops
    assert any(e[0] == "warning" and e[1] == "oops" for e in net.log_events)

    async def good(net: SocketNet, data: object) -> int:
        return 7

    assert run_thread(world, a, good) == 7


def test_only_a_thread_may_wait() -> None:
    _, a, _ = pair()
    with pytest.raises(RuntimeError, match="kernel thread"):
        current(a.net("socket"))


def test_a_wait_queue_entry_is_woken_with_the_sock() -> None:
    world, a, _ = pair(trace=True)
    woken: list[int] = []

    async def waiter(net: SocketNet, sk: Any) -> None:
        wait = WaitQueueEntry()
        init_waitqueue_entry(wait, current(net))
        add_wait_queue(net, sk_sleep(sk), wait)
        while len(woken) < 2:
            set_current_state(net, TASK_INTERRUPTIBLE)
            await schedule(net)
            woken.append(net.now)
        remove_wait_queue(net, sk_sleep(sk), wait)

    net = a.net("socket")
    sock = kernel.sock_create(net, uapi.AF_INET, uapi.SOCK_DGRAM, 0)
    sk = sock.sk
    assert sk is not None
    task = kthread_run(net, waiter, sk, "waiter")
    a.processes["socket"].wake()
    world.advance(1 * MSEC)
    assert len(sk.sk_wq) == 1
    for n in (1, 2):
        sk_wake(net, sk)
        a.processes["socket"].wake()
        world.advance(1 * MSEC)
        assert len(woken) == n
    assert task.state == kthread.TASK_DEAD
    assert not sk.sk_wq
    assert traced(a, "add_wait_queue")
    assert traced(a, "wake_up_process")
    assert traced(a, "remove_wait_queue")


# ---- sockets ------------------------------------------------------------------------------


def test_accept_does_not_wait_with_o_nonblock() -> None:
    world, a, _ = pair()

    async def thread(net: SocketNet, data: object) -> int:
        sock = kernel.sock_create(net, uapi.AF_INET, uapi.SOCK_STREAM, 0)
        await kernel.kernel_bind(net, sock, (uapi.AF_INET, 99, uapi.INADDR_ANY))
        await kernel.kernel_listen(net, sock, 1)
        new = kernel.sock_create_lite(net, uapi.AF_INET, sock.type, 0)
        try:
            await kernel.inet_accept(net, sock, new, uapi.O_NONBLOCK)
        except BlockingIOError as e:
            assert new.sk is None
            assert kernel.kernel_getsockname(net, sock)[1] == 99
            return e.errno or 0
        finally:
            kernel.kernel_release(net, sock)
        return 0

    assert run_thread(world, a, thread) == errno.EAGAIN
    world.check_conservation()


def test_bind_says_what_is_wrong() -> None:
    world, a, _ = pair()

    async def thread(net: SocketNet, data: object) -> int:
        sock = kernel.sock_create(net, uapi.AF_INET, uapi.SOCK_STREAM, 0)
        try:
            await kernel.kernel_bind(net, sock, (uapi.AF_INET, 99, bytes((9, 9, 9, 9))))
        except OSError as e:
            return e.errno or 0
        finally:
            kernel.kernel_release(net, sock)
        return 0

    assert run_thread(world, a, thread) == errno.EADDRNOTAVAIL


def test_a_megabyte_through_kernel_sockets_at_both_ends() -> None:
    world, a, b = pair()
    payload = bytes(range(256)) * 4096

    async def server(net: SocketNet, data: object) -> bytes:
        sock = kernel.sock_create(net, uapi.AF_INET, uapi.SOCK_STREAM, 0)
        await kernel.kernel_bind(net, sock, (uapi.AF_INET, 99, uapi.INADDR_ANY))
        await kernel.kernel_listen(net, sock, 1)
        new = await kernel.kernel_accept(net, sock, 0)
        got = bytearray()
        first, second = bytearray(10), bytearray(100_000)
        while n := await kernel.kernel_recvmsg(
            net, new, kernel.MsgHdr(), [first, second], 1 << 20, 0
        ):
            got += (first + second)[:n]
        kernel.kernel_release(net, new)
        kernel.kernel_release(net, sock)
        return bytes(got)

    async def client(net: SocketNet, data: object) -> int:
        sock = kernel.sock_create(net, uapi.AF_INET, uapi.SOCK_STREAM, 0)
        await kernel.kernel_connect(net, sock, (uapi.AF_INET, 99, bytes((10, 0, 0, 1))))
        half = len(payload) // 2
        vec: list[bytes | bytearray] = [payload[:half], bytearray(payload[half:])]
        sent = await kernel.kernel_sendmsg(net, sock, kernel.MsgHdr(), vec, len(payload))
        kernel.kernel_release(net, sock)
        return sent

    task = kthread_run(a.net("socket"), server, None, "server")
    a.processes["socket"].wake()
    world.advance(10 * MSEC)
    assert run_thread(world, b, client) == len(payload)
    world.advance(5 * SEC)
    assert task.exit_code == payload
    world.check_conservation()
    assert not a.net("socket").pool.late


def test_a_thread_that_waits_in_recvmsg_can_be_stopped() -> None:
    world, a, _ = pair()

    async def reader(net: SocketNet, data: object) -> str:
        sock = kernel.sock_create(net, uapi.AF_INET, uapi.SOCK_DGRAM, 0)
        await kernel.kernel_bind(net, sock, ANY)
        try:
            await kernel.kernel_recvmsg(net, sock, kernel.MsgHdr(), [bytearray(10)], 10, 0)
        except InterruptedError:
            return "stopped" if kthread_should_stop(net) else "?"
        finally:
            kernel.kernel_release(net, sock)
        return "data"

    task = kthread_run(a.net("socket"), reader, None, "reader")
    a.processes["socket"].wake()
    world.advance(10 * MSEC)
    assert task.call is not None

    async def stopper(net: SocketNet, data: object) -> object:
        return await kthread_stop(net, task)

    assert run_thread(world, a, stopper) == "stopped"


# ---- modules ------------------------------------------------------------------------------


def code(**functions: Any) -> Any:
    return SimpleNamespace(**functions)


def test_a_module_that_fails_is_not_loaded() -> None:
    world, a, _ = pair()
    net = a.net("socket")

    async def init(net: SocketNet, params: Mapping[str, str]) -> None:
        raise OSError(errno.EADDRINUSE, "taken")

    loaded = module.load_module(net, "bad", code(init_module=init))
    with pytest.raises(ModuleError, match="already"):
        module.load_module(net, "bad", code(init_module=init))
    with pytest.raises(ModuleError, match="busy"):
        module.delete_module(net, "bad")
    a.processes["socket"].wake()
    world.advance(1)
    assert not net.modules
    assert "taken" in loaded.error
    with pytest.raises(ModuleError, match="no module"):
        module.delete_module(net, "bad")


def test_modules_are_unloaded_when_the_process_ends() -> None:
    _, a, _ = pair()
    net = a.net("socket")
    ended: list[str] = []

    async def forever(net: SocketNet, data: object) -> None:
        try:
            while not kthread_should_stop(net):
                set_current_state(net, TASK_INTERRUPTIBLE)
                await schedule(net)
            ended.append("thread")
        finally:
            ended.append("finally")

    async def stubborn(net: SocketNet, data: object) -> None:
        try:
            while True:
                set_current_state(net, TASK_INTERRUPTIBLE)
                await schedule(net)
        finally:
            ended.append("thrown out")

    async def init(net: SocketNet, params: Mapping[str, str]) -> object:
        kthread_run(net, stubborn, None, "stubborn")
        return kthread_run(net, forever, None, "forever")

    async def cleanup(net: SocketNet, task: Any) -> None:
        await kthread_stop(net, task)
        ended.append("module")

    module.load_module(net, "m", code(init_module=init, cleanup_module=cleanup), {"a": "b"})
    kthread.run_kthreads(net)
    assert module.lsmod(net) == [{"module": "m", "state": "Live", "params": {"a": "b"}}]
    module.modules_exit(net)
    assert ended == ["thread", "finally", "module", "thrown out"]
    assert not net.modules
    assert not net.kthreads.tasks


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("", "which module"),
        ("/nowhere/x.py", "no such file"),
        ("no_such.module", "cannot be imported"),
        ("json", "has no init_module"),
        (f"{EXAMPLES / 'server.py'} port", "NAME=VALUE"),
    ],
)
def test_what_is_no_module_is_named(spec: str, text: str) -> None:
    _, a, _ = pair()
    with pytest.raises(ModuleError, match=text):
        kmod.request_module(a.net("socket"), spec)


# ---- the examples -------------------------------------------------------------------------


async def get(host: Host, path: str) -> bytes:
    sock = await host.connect("10.0.0.1", 8080)
    await sock.sendall(f"GET {path} HTTP/1.0\r\n".encode())
    await sock.sendall(b"Host: a\r\n\r\n")
    answer = await sock.recv_all()
    await sock.close()
    return answer


def test_the_example_server() -> None:
    world, a, b = pair(trace=True)
    loaded = insmod(a, "server.py", port="8080")
    world.advance(10 * MSEC)
    assert loaded.state == "Live"
    with world:
        tasks = [world.start(get(b, f"/{n}")) for n in range(5)]
        idle = world.start(b.connect("10.0.0.1", 8080))  # says nothing, and is stopped
        for n, task in enumerate(tasks):
            answer = world.run(task)
            assert answer is not None
            assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
            assert f"/{n}, from the kernel" in answer.decode()
            assert answer.split(b"\r\n\r\n")[1].startswith(b"hello, 10.0.0.2 port ")
        assert loaded.data.served == 5
        assert len(loaded.data.workers) == 1
        for function in ("sock_create_lite", "add_wait_queue", "wake_up_process", "kthread_run",
                         "kernel_recvmsg", "kernel_sendmsg", "inet_csk_accept"):  # fmt: skip
            assert traced(a, function), function
        rmmod(world, a, "server")
        no_kernel_left(a)
        sock = world.run(idle)
        assert isinstance(sock, SimSocket)
        assert world.run(world.start(sock.recv_all())) == b""
        with pytest.raises(ConnectionRefusedError):
            world.run(world.start(b.connect("10.0.0.1", 8080)))
        world.check_conservation()


def answer_dns(query: bytes, name: bytes, addr: bytes) -> bytes:
    """An alias of `name`, and the alias's address, with compressed names."""
    id = query[:2]
    head = id + struct.pack("!HHHHH", 0x8180, 1, 2, 0, 0)
    alias = b"\x04real\xc0\x10"
    first = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, len(alias)) + alias
    at = len(head) + len(query) - 12 + 12
    second = struct.pack("!H", 0xC000 | at) + struct.pack("!HHIH", 1, 1, 60, 4) + addr
    assert name in query
    return head + query[12:] + first + second


async def dns_server(host: Host, lost: int) -> int:
    """Forgets `lost` questions, answers the next one: first wrongly, then rightly."""
    sock = await host.socket(SOCK_DGRAM)
    await sock.bind(("0.0.0.0", 53))
    for _ in range(lost):
        await sock.recvfrom(1500)
    query, peer = await sock.recvfrom(1500)
    assert peer is not None
    right = answer_dns(query, b"\x03www\x07example", bytes((10, 0, 0, 2)))
    spoofed = bytes((right[0] ^ 1,)) + right[1:]
    await sock.sendto(spoofed, peer)
    await sock.sendto(right, peer)
    await sock.close()
    return lost + 1


async def web_server(host: Host, body: bytes) -> bytes:
    listener = await host.listen(8000)
    sock, _ = await listener.accept()
    request = b""
    while b"\r\n\r\n" not in request:
        request += await sock.recv(1000)
    await sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)
    await sock.close()
    await listener.close()
    return request


def test_the_example_client() -> None:
    world, a, b = pair()
    body = bytes(range(251)) * 1000
    with world:
        dns = world.start(dns_server(b, lost=1))
        web = world.start(web_server(b, body))
        loaded = insmod(a, "client.py", url="http://www.example:8000/x", nameserver="10.0.0.2")
        world.run(web)
        world.advance(1 * SEC)
        assert dns.result() == 2
        assert b"GET /x HTTP/1.0\r\nHost: www.example\r\n" in web.result()
        assert loaded.data.done
        assert bytes(loaded.data.answer) == b"HTTP/1.0 200 OK\r\n\r\n" + body
        rmmod(world, a, "client")
        no_kernel_left(a)
        world.check_conservation()


def test_the_example_client_with_a_hosts_file(tmp_path: Path) -> None:
    world, a, b = pair()
    hosts = tmp_path / "hosts"
    hosts.write_text("# ours\n10.0.0.9 other\n10.0.0.2 alias WWW # b\n10.0.0.3 www\n")
    with world:
        web = world.start(web_server(b, b"ok"))
        loaded = insmod(a, "client.py", url="http://www:8000/", hosts=str(hosts))
        world.run(web)
        world.advance(1 * SEC)
        assert loaded.data.answer.endswith(b"\r\n\r\nok")


def test_a_name_server_that_does_not_answer() -> None:
    world, a, b = pair()

    async def thread(net: SocketNet, data: object) -> int:
        try:
            await dns_resolver.dns_query(net, "www.example", server=bytes((10, 0, 0, 2)))
        except OSError as e:
            return e.errno or 0
        return 0

    async def deaf() -> None:
        sock = await b.socket(SOCK_DGRAM)
        await sock.bind(("0.0.0.0", 53))
        for _ in range(dns_resolver.TRIES):
            await sock.recvfrom(1500)

    with world:
        task = world.start(deaf())
        assert run_thread(world, a, thread) == errno.ETIMEDOUT
        assert task.done


@pytest.mark.parametrize(
    ("answer", "err"),
    [
        (b"", errno.EBADMSG),
        (bytes(12), errno.EBADMSG),
        (b"\0\0\x81\x83" + bytes(8), errno.ENOENT),
        (b"\0\0\x81\x82" + bytes(8), errno.EREMOTEIO),
        (b"\0\0\x81\x80\0\1\0\1\0\0\0\0" + b"\xc0\x0c" * 40, errno.EBADMSG),
        (b"\0\0\x81\x80\0\0\0\1\0\0\0\0" + b"\x3fabc", errno.EBADMSG),
    ],
)
def test_answers_that_are_none(answer: bytes, err: int) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        dns_resolver.parse_answer(answer)
    assert raised.value.errno == err
