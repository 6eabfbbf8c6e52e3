# SPDX-License-Identifier: MIT
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests import timing

try:
    from skbus.bus.version import is_compiled
except ModuleNotFoundError as e:
    pytest.exit(f"{e}: `make test` installs skbus into .venv; then `. .venv/bin/activate`", 4)

# The same examples in every run, and no deadlines: a test is no judge of the machine's speed.
settings.register_profile("skbus", deadline=None, derandomize=True)
# HYPOTHESIS_PROFILE=explore looks for new examples, and for longer.
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "skbus"))


def pytest_addoption(parser: pytest.Parser) -> None:
    timing.options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends a run as Ctrl-C does: with its fixtures, and so without leaving labs behind.

    A shell without job control starts what stands before `&` with SIGINT ignored, and the programs
    that tests interrupt would inherit that.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # Debian's ordinary users do not find ip, ethtool, tcpdump, hping3 and others.
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    places += [p for p in ("/usr/local/sbin", "/usr/sbin", "/sbin") if p not in places]
    os.environ["PATH"] = os.pathsep.join(places)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(timing.Timing(config), "skbus timing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test-compiled` runs the tests too, where what they replace can be replaced."""
    if is_compiled():
        skip = pytest.mark.skip(reason="replaces something in a compiled module")
        for item in items:
            if item.get_closest_marker("interpreted"):
                item.add_marker(skip)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short path: run directories lie in it, and the path of a Unix socket has
    107 bytes at most, which pytest's own directories leave too little of."""
    with tempfile.TemporaryDirectory(prefix="skbus-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition, for a minute at most."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "did not happen"
            time.sleep(0.01)

    return wait
