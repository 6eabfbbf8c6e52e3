# SPDX-License-Identifier: MIT
"""Applications of a simulation: plain `async def` functions, run in virtual time.

Tasks run in the order in which they became ready. There is no event loop of a library here, so
every run is the same, bit for bit.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Future(Generic[T]):
    """Something that will be known later; `await` it in a task."""

    __slots__ = ("_error", "_value", "_waiters", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiters: list[Callable[[], None]] = []

    def set(self, value: T) -> None:
        """Make the value known; a second call changes nothing."""
        self._finish(value, None)

    def fail(self, error: BaseException) -> None:
        """End in an error, which `result` raises."""
        self._finish(None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def result(self) -> T:
        """The value; raises the error of `fail`. RuntimeError while neither is known."""
        if not self.done:
            raise RuntimeError("not known yet")
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def when_done(self, wake: Callable[[], None]) -> None:
        """Call `wake` once the value or the error is known."""
        if self.done:
            wake()
        else:
            self._waiters.append(wake)

    def __await__(self) -> Generator["Future[Any]", None, T]:
        if not self.done:
            yield self
        return self.result()


class Task(Future[T]):
    """A running `async def`; awaiting it gives its result."""

    __slots__ = ("_coro", "name")

    def __init__(self, coro: Coroutine[Any, Any, T], name: str) -> None:
        super().__init__()
        self._coro = coro
        self.name = name


class Runner:
    """Runs tasks until each waits for something."""

    def __init__(self) -> None:
        self._ready: deque[Task[Any]] = deque()
        self.tasks: list[Task[Any]] = []

    def start(self, coro: Coroutine[Any, Any, T], name: str = "") -> Task[T]:
        """Begin a task; it runs at the next `run_ready`."""
        task = Task(coro, name or getattr(coro, "__name__", "task"))
        self.tasks.append(task)
        self._ready.append(task)
        return task

    def run_ready(self) -> int:
        """Run the tasks that are ready; returns how many steps that took."""
        steps = 0
        while self._ready:
            task = self._ready.popleft()
            steps += 1
            try:
                waits_for = task._coro.send(None)
            except StopIteration as e:
                task.set(e.value)
            except BaseException as e:  # noqa: BLE001 (tasks that await this one get it)
                task.fail(e)
            else:
                waits_for.when_done(lambda task=task: self._ready.append(task))
        return steps

    def close(self) -> None:
        """End the tasks that still wait, so that their `finally` blocks run."""
        for task in self.tasks:
            if not task.done:
                task._coro.close()
