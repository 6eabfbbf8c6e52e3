# SPDX-License-Identifier: MIT
"""Threads of the kernel (`kernel/kthread.c`, `kernel/sched/`): code that runs inside the socket
process and waits as kernel code does, with wait queues and `schedule`.

    kthread_run -> runqueue -> run_kthreads (at each batch's end) -> threadfn
    threadfn: add_wait_queue(sk_sleep(sk), wait); set_current_state(TASK_INTERRUPTIBLE)
              await schedule(net)                ... sk_wake -> wake_up_process -> runqueue

A thread is a coroutine that the core drives. So nothing here does I/O, and the same code runs in
the socket process and in a simulation. A thread has the process to itself until it waits. Code that
takes long calls `await cond_resched(net)` in between, or it holds everybody up.

Called by modules (module.py) through kernel.py; `run_kthreads` by core.py. An exception that a
thread does not catch ends only that thread, with a warning in the log.
"""

import errno
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

from skbus.core.timer import Timer
from skbusd.socket.call import AnyCall, Call, attempt
from skbusd.socket.files import Client, Cred
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import Sock

TASK_RUNNING: Final = 0
TASK_INTERRUPTIBLE: Final = 1
TASK_UNINTERRUPTIBLE: Final = 2
TASK_DEAD: Final = 64
MAX_SCHEDULE_TIMEOUT: Final = (1 << 63) - 1

_ROUNDS: Final = 64
"""The most rounds in one batch, for threads that wake each other."""

ThreadFn = Callable[[SocketNet, Any], Coroutine[Any, Any, object]]


class TaskStruct:
    """`struct task_struct`: a thread. comm: its name. exit_code: what threadfn returned."""

    __slots__ = (
        "_exited", "call", "comm", "coro", "exit_code", "oops", "pid", "queued", "should_stop",
        "state", "timer",
    )  # fmt: skip

    def __init__(self, pid: int, comm: str, coro: Coroutine[Any, Any, object]) -> None:
        self.pid = pid
        self.comm = comm
        self.coro = coro
        self.state = TASK_RUNNING
        self.queued = False
        self.should_stop = False
        self.exit_code: object = None
        self.oops = ""
        """The exception that the thread died of, if any."""
        self.call: Call | None = None
        """The call into the socket layer in which it waits."""
        self.timer: Timer[SocketNet] | None = None
        self._exited: list[TaskStruct] = []

    def __repr__(self) -> str:
        return f"<TaskStruct {self.pid} {self.comm} state={self.state}>"


class KThreads:
    """The threads of one socket process, and the running one."""

    __slots__ = ("client", "current", "next_pid", "next_req", "resched", "runqueue", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[int, TaskStruct] = {}
        self.runqueue: deque[TaskStruct] = deque()
        self.current: TaskStruct | None = None
        self.next_pid = 2
        self.next_req = 0
        self.client = Client(
            b"kthreadd".ljust(16, b"\0"), Cred(0, (), net_raw=True, uid=0, net_admin=True)
        )
        """The client in whose name threads run: root."""
        self.resched: Timer[SocketNet] = Timer(lambda net: None)
        """Wakes the process for threads that did not finish in their batch."""


class _Switch:
    """Gives the processor back to `run_kthreads`."""

    def __await__(self) -> Generator[None, None, None]:
        yield


_SWITCH: Final = _Switch()


def kthreads(net: SocketNet) -> KThreads:
    """The threads of this process."""
    if net.kthreads is None:
        net.kthreads = KThreads()
    found: KThreads = net.kthreads
    return found


def current(net: SocketNet) -> TaskStruct:
    """`current`: the thread that is running. RuntimeError outside of one."""
    task = kthreads(net).current
    if task is None:
        raise RuntimeError("only a kernel thread can wait")
    return task


# ---- life ---------------------------------------------------------------------------------


def kthread_create(net: SocketNet, threadfn: ThreadFn, data: Any, name: str) -> TaskStruct:
    """`kthread_create`: a thread that `wake_up_process` will start."""
    threads = kthreads(net)
    pid = threads.next_pid
    threads.next_pid += 1
    task = TaskStruct(pid, name, threadfn(net, data))
    task.state = TASK_UNINTERRUPTIBLE
    threads.tasks[pid] = task
    return task


def kthread_run(net: SocketNet, threadfn: ThreadFn, data: Any, name: str) -> TaskStruct:
    """`kthread_run`: create a thread and start it; it runs at the end of this batch."""
    task = kthread_create(net, threadfn, data, name)
    if net.tracing:
        net.trace("kthread_run", pid=task.pid, comm=name)
    wake_up_process(net, task)
    return task


def kthread_should_stop(net: SocketNet) -> bool:
    """`kthread_should_stop`: has somebody asked the running thread to end?"""
    return current(net).should_stop


async def kthread_stop(net: SocketNet, task: TaskStruct) -> object:
    """`kthread_stop`: ask a thread to end, and wait until it has. Its exit code.

    Differs from Linux: the thread's call that waits in the socket layer ends with EINTR, so a
    thread that waits in `kernel_recvmsg` can be stopped.
    """
    task.should_stop = True
    if net.tracing:
        net.trace("kthread_stop", pid=task.pid, comm=task.comm)
    if task.call is not None:
        task.call.interrupted(net, errno.EINTR)
    wake_up_process(net, task)
    if task.state != TASK_DEAD:
        task._exited.append(current(net))
    while task.state != TASK_DEAD:
        set_current_state(net, TASK_UNINTERRUPTIBLE)
        await schedule(net)
    return task.exit_code


def _exit(net: SocketNet, task: TaskStruct) -> None:
    """`do_exit`"""
    task.state = TASK_DEAD
    if task.timer is not None:
        net.del_timer(task.timer)
        task.timer = None
    kthreads(net).tasks.pop(task.pid, None)
    if net.tracing:
        net.trace("do_exit", pid=task.pid, comm=task.comm)
    for other in task._exited:
        wake_up_process(net, other)


# ---- waiting ------------------------------------------------------------------------------


def set_current_state(net: SocketNet, state: int) -> None:
    """`set_current_state`: tell `schedule` what to do. Set it before looking at the condition: a
    wake-up in between makes the thread TASK_RUNNING, and it will not sleep."""
    current(net).state = state


async def schedule(net: SocketNet) -> None:
    """`schedule`: let others run; unless TASK_RUNNING, sleep until `wake_up_process`."""
    task = current(net)
    if task.state == TASK_RUNNING:
        _enqueue(net, task)
    await _SWITCH


async def cond_resched(net: SocketNet) -> None:
    """`cond_resched`: let others run, and go on in the next batch."""
    set_current_state(net, TASK_RUNNING)
    await schedule(net)


async def schedule_timeout(net: SocketNet, timeout: int) -> int:
    """`schedule_timeout`: `schedule`, but for `timeout` ns at most. Returns the ns that are left.

    Differs from Linux: ns instead of jiffies.
    """
    if timeout >= MAX_SCHEDULE_TIMEOUT:
        await schedule(net)
        return MAX_SCHEDULE_TIMEOUT
    task = current(net)
    expires = net.now + timeout
    timer: Timer[SocketNet] = Timer(_process_timeout, task)
    task.timer = timer
    net.mod_timer(timer, expires)
    await schedule(net)
    net.del_timer(timer)
    task.timer = None
    return max(0, expires - net.now)


async def msleep(net: SocketNet, msecs: int) -> None:
    """`msleep_interruptible`: sleep, unless somebody stops the thread."""
    set_current_state(net, TASK_INTERRUPTIBLE)
    left = msecs * 1_000_000
    while left and not kthread_should_stop(net):
        left = await schedule_timeout(net, left)
        set_current_state(net, TASK_INTERRUPTIBLE)
    set_current_state(net, TASK_RUNNING)


def _process_timeout(net: SocketNet, task: TaskStruct) -> None:
    """`process_timeout`"""
    wake_up_process(net, task)


def wake_up_process(net: SocketNet, task: TaskStruct) -> bool:
    """`wake_up_process`: the thread runs at the end of this batch. False if it was awake."""
    if task.state in (TASK_RUNNING, TASK_DEAD):
        return False
    task.state = TASK_RUNNING
    if net.tracing:
        net.trace("wake_up_process", pid=task.pid, comm=task.comm)
    if task is not kthreads(net).current:
        _enqueue(net, task)
    # else it has not slept yet, and `schedule` will find it TASK_RUNNING
    return True


def _enqueue(net: SocketNet, task: TaskStruct) -> None:
    if not task.queued:
        task.queued = True
        kthreads(net).runqueue.append(task)


# ---- wait queues --------------------------------------------------------------------------


class WaitQueueEntry(Call):
    """`wait_queue_entry_t`: stands in a sock's wait queue among the calls of applications, and is
    woken up like them."""

    __slots__ = ("func", "private")

    def __init__(self) -> None:
        super().__init__(_removed, name="wait")
        self.private: TaskStruct | None = None
        self.func: Callable[[SocketNet, WaitQueueEntry], None] = default_wake_function


def _removed(net: SocketNet, call: Call, err: int, value: object, data: bytes) -> None:
    """The socket is being closed: wake the entry's thread, so that it sees that."""
    if isinstance(call, WaitQueueEntry):
        call.func(net, call)


def default_wake_function(net: SocketNet, wait: WaitQueueEntry) -> None:
    """`default_wake_function`: wake the thread up."""
    if wait.private is not None:
        wake_up_process(net, wait.private)


def init_waitqueue_entry(wait: WaitQueueEntry, task: TaskStruct) -> None:
    """`init_waitqueue_entry`: an entry by which `task` will be woken up."""
    wait.private = task
    wait.func = default_wake_function


def sk_sleep(sk: Sock) -> Sock:
    """`sk_sleep(sk)`: the wait queue of a sock.

    Differs from Linux: it returns the sock itself, which has the queue (`sk.sk_wq`).
    """
    return sk


def add_wait_queue(net: SocketNet, queue: Sock, wait: WaitQueueEntry) -> None:
    """`add_wait_queue`: from now on each wake-up of the sock wakes the entry's thread."""
    wait.done = False
    wait.retry = lambda net, _, sk: wait.func(net, wait)
    if wait not in queue.sk_wq:
        queue.sk_wq.append(wait)
        wait.waits.append(queue)
    if net.tracing:
        net.trace("add_wait_queue", sk=queue.number, comm=wait.private and wait.private.comm)


def remove_wait_queue(net: SocketNet, queue: Sock, wait: WaitQueueEntry) -> None:
    """`remove_wait_queue`"""
    wait.retry = None
    if wait in queue.sk_wq:
        queue.sk_wq.remove(wait)
    if queue in wait.waits:
        wait.waits.remove(queue)
    if net.tracing:
        net.trace("remove_wait_queue", sk=queue.number)


# ---- calls that wait ----------------------------------------------------------------------


def unanswered(*_: object) -> None:
    """`Call.complete` until `kernel_wait` puts its own there."""


async def kernel_call(
    net: SocketNet, start: Callable[[SocketNet, Call], None]
) -> tuple[Any, bytes]:
    """`kernel_wait`, for a call with no memory of its own."""
    return await kernel_wait(net, Call(unanswered, kthreads(net).client), start)


async def kernel_wait(
    net: SocketNet, call: AnyCall, start: Callable[[SocketNet, AnyCall], None]
) -> tuple[Any, bytes]:
    """Carry out one call of `sock.ops` in the running thread, and wait for its answer.

    start: begins it, with the call to be answered. Returns (result, data), or raises OSError with
    its errno.
    """
    task = current(net)
    answer: list[tuple[int, object, bytes]] = []

    def complete(net: SocketNet, call: Call, err: int, value: object, data: bytes) -> None:
        answer.append((err, value, data))
        if task.state != TASK_DEAD:
            wake_up_process(net, task)

    call.complete = complete
    call.identity = call.client.id if call.client else b""
    threads = kthreads(net)
    call.req = threads.next_req = threads.next_req + 1
    attempt(net, call, start)
    if not answer:
        task.call = call
        while not answer:
            task.state = TASK_UNINTERRUPTIBLE
            await schedule(net)
        task.call = None
    task.state = TASK_RUNNING
    err, value, data = answer[0]
    if err:
        raise OSError(err, value if isinstance(value, str) and value else errno.errorcode.get(err))
    return value, data


# ---- the scheduler ------------------------------------------------------------------------


def run_kthreads(net: SocketNet) -> None:
    """Give every thread that can run its turn. Threads that are still awake go on in the next
    batch, which begins at once."""
    threads = kthreads(net)
    rounds = 0
    while threads.runqueue and rounds < _ROUNDS:
        rounds += 1
        yielded = [_switch_to(net, threads, threads.runqueue.popleft())
                   for _ in range(len(threads.runqueue))]  # fmt: skip
        if any(yielded):
            break
    if threads.runqueue:
        net.mod_timer(threads.resched, net.now + 1)


def _switch_to(net: SocketNet, threads: KThreads, task: TaskStruct) -> bool:
    """Run one thread until it waits. True: it gave way, and would go on."""
    task.queued = False
    threads.current = task
    before, net.current = net.current, threads.client
    if net.tracing:
        net.trace("__schedule", pid=task.pid, comm=task.comm)
    try:
        task.coro.send(None)
    except StopIteration as e:
        task.exit_code = e.value
        _exit(net, task)
    except Exception as e:  # noqa: BLE001 (the thread ends, and nothing else)
        task.oops = "".join(traceback.format_exception(e))
        net.warning("oops", comm=task.comm, pid=task.pid, error=repr(e), trace=task.oops)
        _exit(net, task)
    finally:
        threads.current = None
        net.current = before
    if task.state == TASK_RUNNING:
        _enqueue(net, task)
        return True
    return False


def kill_kthreads(net: SocketNet) -> None:
    """The process ends: throw the remaining threads out where they wait."""
    for task in tuple(kthreads(net).tasks.values()):
        try:
            task.coro.close()
        except Exception as e:  # noqa: BLE001 (the others must also end)
            net.warning("oops", comm=task.comm, pid=task.pid, error=repr(e))
        _exit(net, task)
