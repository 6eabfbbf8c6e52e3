# SPDX-License-Identifier: MIT
"""What the ends of all interoperability tests have in common. An end is a function that runs on the
kernel's sockets or on ours, alike:

    @end
    def serve_receive(net: Module, port: int) -> Any:
        ...

It lies in one of the files `endpoints*.py`. A test starts it by `cable.ours("serve_receive",
port=7001)` or `cable.linux(...)`. The test's marker `ends("endpoints_inet")` names the file; it is
`endpoints.py` where there is no marker. The end is a process of its own, in its stack's namespace:

    end.py --socket skbus.socket endpoints serve_receive '{"port": 7001}'

What the function tells on the way (`tell`), and what it returns, goes to standard output: one JSON
object a line.
"""

import argparse
import contextlib
import errno
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

Module = Any
"""the standard library's socket module, or ours"""

F = TypeVar("F", bound=Callable[..., Any])
_MARK: Final = "is_an_end"
_INSTALLED: Final = "has_its_sockets_installed"


def end(function: F) -> F:
    """Make a function an end that tests can start. Its first argument is the socket module that it
    is to use; the others come from the test, by name."""
    setattr(function, _MARK, True)
    return function


def installed_end(function: F) -> F:
    """The same, for programs that import `socket` themselves: ours is installed in its place."""
    setattr(function, _INSTALLED, True)
    return end(function)


def tell(**what: Any) -> None:
    """A line to the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def wait() -> None:
    """Until the test says that it may go on (`End.go_on`)."""
    sys.stdin.readline()


def listening(net: Module, port: int, backlog: int = 128) -> Any:
    """A listener, and the test told so."""
    sock = net.create_server(("0.0.0.0", port), backlog=backlog)
    tell(ready=True)
    return sock


def error_name(error: OSError) -> str:
    """How a call failed, by the name of its errno."""
    return errno.errorcode.get(error.errno or 0, str(error))


def main() -> None:
    """Run one end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--socket", default="socket")
    parser.add_argument("file", help="endpoints, endpoints_inet and so on")
    parser.add_argument("name")
    parser.add_argument("arguments", type=json.loads)
    told = parser.parse_args()
    # The modules are those of the tests' own package, and no folder of it hides another module.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    ends = importlib.import_module(f"tests.interop.{told.file}")
    function: Any = getattr(ends, told.name, None)
    if not hasattr(function, _MARK):
        parser.error(f"{told.file} has no end {told.name!r}")
    net = importlib.import_module(told.socket)
    replace = hasattr(function, _INSTALLED) and told.socket != "socket"
    with net.install() if replace else contextlib.nullcontext():
        tell(result=function(net, **told.arguments))


if __name__ == "__main__":
    main()
