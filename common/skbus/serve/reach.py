# SPDX-License-Identifier: MIT
"""What a server says when it listens: where it is, and what to type at the other end.

`skbus serve` prints these lines; they know a lab, `skbus up`, and layers in containers.
"""

from collections.abc import Iterator

from skbus.bus import rundir
from skbus.bus.rundir import RunDir
from skbus.bus.state import read_state
from skbus.stack.config import Config

_WHAT = {
    "http": "curl http://{addr}{colon}/",
    "echo": "nc {addr} {port}",
    "discard": "nc {addr} {port}",
    "chargen": "nc {addr} {port}",
    "iperf3": "iperf3 -c {addr}{option}",
}
_BOTH = frozenset({"echo", "discard", "chargen"})


def addresses(run: RunDir) -> list[str]:
    """The stack's own addresses, without prefix lengths."""
    return [a.split("/")[0] for device in Config.read(run).devices for a in device.addr]


def command(kind: str, addr: str, port: int) -> str:
    """What speaks with such a server."""
    colon = "" if kind == "http" and port == 80 else f":{port}"
    option = "" if kind == "iperf3" and port == 5201 else f" -p {port}"
    return _WHAT[kind].format(addr=addr, port=port, colon=colon, option=option)


def lines(run: RunDir, kind: str, address: str, port: int) -> Iterator[str]:
    """For people."""
    ours = addresses(run)
    wherever = address in ("", "0.0.0.0")
    at = ours if wherever else [address]
    ways = "TCP and UDP" if kind in _BOTH else "TCP"
    if kind == "iperf3":
        ways = "TCP, and UDP for a test with -u"
    where = ", ".join(at) or "whatever address the stack will have"
    yield f"{kind} server at {where}, port {port} ({ways})"
    for addr in at[:1]:
        yield f"at the other end: {_prefix(run)}{command(kind, addr, port)}"
    yield "Ctrl-C ends it"


def _prefix(run: RunDir) -> str:
    """What comes before the command; nothing where the other end is a machine of its own."""
    state = read_state(run)
    if state is None or "lab" not in state:
        return ""
    base = rundir.default_base()
    if run.path == base / "default":
        return "skbus lab exec -- "
    if run.path.parent == base:
        return f"skbus lab exec --name {run.path.name} -- "
    return f"{rundir.ENV}={run.path} skbus lab exec -- "
