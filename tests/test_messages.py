# SPDX-License-Identifier: MIT
"""Messages can be followed: the interfaces say who calls whom, the types say what a call carries,
and docs/messages.md says both as they are."""

import ast
import importlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skbus.cli import abi
from skbus.cli.app import app
from skbus.core.abi import GetPort, LocalAddr, Recvmsg
from skbus.core.entry import (
    BY_NAME,
    INTERFACES,
    Entry,
    EntryError,
    Interface,
    Request,
    entries_of,
    reply_of,
    serve,
)
from skbus.core.interfaces import Neighbour, NetProtocol, TransportProto

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("nic", "ip", "tcp", "udp", "socket")
CALLS = {"call", "call_skb", "transport_call", "tell_others", "new_request", "_ask"}
"""Functions that send an entry, or have it sent."""
NAMES = {interface.__name__: interface for interface in INTERFACES}


def test_the_page_is_what_the_interfaces_say() -> None:
    made = "\n".join(abi.page()) + "\n"
    assert (ROOT / "docs" / "messages.md").read_text() == made, (
        "docs/messages.md is old: skbus abi --markdown > docs/messages.md"
    )
    assert CliRunner().invoke(app, ["abi", "--markdown"]).stdout == made


def test_every_entry_is_served_by_those_that_its_interface_names() -> None:
    serves = {
        layer: set(importlib.import_module(f"skbusd.{layer}.core").SERVES) for layer in LAYERS
    }
    for interface in INTERFACES:
        if interface in (Neighbour, NetProtocol):
            continue
        entries = set(entries_of(interface))
        found = {layer for layer in LAYERS if serves[layer] & entries}
        assert found == set(interface.callees) - {"plug-ins"}, interface.__name__
        for entry in entries:
            assert any(entry in serves[layer] for layer in LAYERS), f"nobody takes {entry!r}"


def calls_in(path: Path) -> set[str]:
    """The interfaces of which a file sends entries."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if isinstance(node.func, ast.Name):
            name = node.func.id
        if name not in CALLS:
            continue
        for arg in node.args:
            if (
                isinstance(arg, ast.Attribute)
                and isinstance(arg.value, ast.Name)
                and arg.value.id in NAMES
                and arg.attr in BY_NAME
            ):
                found.add(arg.value.id)
    return found


def test_every_interface_is_called_by_those_that_it_names() -> None:
    callers: dict[str, set[str]] = defaultdict(set)
    for layer in LAYERS:
        for path in (ROOT / "services" / "skbusd" / layer).glob("*.py"):
            for name in calls_in(path):
                callers[name].add(layer)
    for interface in INTERFACES:
        by = callers[interface.__name__]
        # ip calls a transport's handlers by what InetAddProtocol named, and registers its own.
        if interface.__name__.endswith("Protocol") or not interface.callers:
            assert by <= {"ip"}, interface.__name__
        else:
            assert by == set(interface.callers) - {"plug-ins"}, interface.__name__


def nothing(net: object, item: object) -> None:
    """A handler."""


def test_serving_is_complete_and_only_of_its_interface() -> None:
    class Two(Interface):
        one_of_two = Entry(Recvmsg)
        other_of_two = Entry(Recvmsg)

    try:
        with pytest.raises(EntryError, match=r"nothing serves Two\.other_of_two"):
            serve(Two, Two.one_of_two.by(nothing))
        with pytest.raises(EntryError, match="served twice"):
            serve(Two, Two.one_of_two.by(nothing), Two.one_of_two.by(nothing))
        with pytest.raises(EntryError, match=r"TransportProto\.recvmsg is not an entry of Two"):
            serve(Two, TransportProto.recvmsg.by(nothing))
        assert list(serve(Two, Two.one_of_two.by(nothing), without=(Two.other_of_two,))) == [
            Two.one_of_two
        ]
        with pytest.raises(EntryError, match=r"Two\.one_of_two has that name"):

            class Three(Interface):
                one_of_two = Entry(Recvmsg)

    finally:
        INTERFACES.remove(Two)
        del BY_NAME["one_of_two"], BY_NAME["other_of_two"]


@pytest.mark.parametrize("val", [None, b"x", (b"x",), ("x", 1), (b"x", 1, 2), (b"x", "1"), 7])
def test_an_answer_of_another_type_is_refused(val: object) -> None:
    with pytest.raises(EntryError, match="is answered by LocalAddr"):
        reply_of(TransportProto.bind, 0, val)


def test_answers() -> None:
    assert reply_of(TransportProto.bind, 0, [b"x", 1]) == LocalAddr(b"x", 1)
    assert reply_of(TransportProto.bind, 98, None) is None
    assert reply_of(TransportProto.disconnect, 0, b"whatever") is None
    assert reply_of(TransportProto.getsockopt, 0, b"x") == b"x"
    assert reply_of(Request(GetPort, bytes), 1, None) is None


WRONG = """
from skbus.core.abi import Close, GetPort, LocalAddr, RcvCb, XmitCb
from skbus.core.interfaces import Ip, TransportProto
from skbus.core.net import Net
from skbus.core.skbuff import SkBuff
from skbus.inet.transport import sk_ret


def wrong_item(net: Net) -> None:
    net.call("tcp", TransportProto.close, GetPort(1, 1, b"", 1, 0, 0))  # wrong: item


def wrong_cb(net: Net, skb: SkBuff, cb: RcvCb) -> None:
    net.call_skb("ip", Ip.ip_queue_xmit, skb, cb)  # wrong: cb


def wrong_kind(net: Net, skb: SkBuff) -> None:
    net.call("ip", Ip.ip_queue_xmit, skb)  # wrong: an skb is no item


def wrong_name(net: Net) -> None:
    net.call("tcp", TransportProto.shut, Close(1, 0, 0))  # wrong: no such entry


def takes_connect(net: Net, item: GetPort) -> None:
    pass


TransportProto.bind.by(takes_connect)
TransportProto.close.by(takes_connect)  # wrong: the handler's item


def right(net: Net, skb: SkBuff, cb: XmitCb) -> None:
    net.call("tcp", TransportProto.close, Close(1, 0, 0))
    net.call_skb("ip", Ip.ip_queue_xmit, skb, cb)
"""


@pytest.mark.slow
def test_a_wrong_item_is_a_type_error(tmp_path: Path) -> None:
    """Every line that says `# wrong`, and no other."""
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "pyproject.toml",
    ]
    done = subprocess.run(
        [*command, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    errors = {
        int(line.partition("wrong.py:")[2].split(":")[0])
        for line in done.stdout.splitlines()
        if "wrong.py:" in line and " error: " in line
    }
    wrong = {n for n, line in enumerate(WRONG.splitlines(), 1) if "# wrong" in line}
    assert errors == wrong, done.stdout + done.stderr


def test_the_command() -> None:
    runner = CliRunner()
    all_of_it = runner.invoke(app, ["abi"]).stdout
    for interface in INTERFACES:
        assert interface.__name__ in all_of_it
    for name in BY_NAME:
        assert name in all_of_it
    assert max(map(len, all_of_it.splitlines())) <= 80
    one = runner.invoke(app, ["abi", "bind"]).stdout
    assert "tcp/tcp.py:tcp_v4_get_port" in one
    assert "ifindex" in one
    item = runner.invoke(app, ["abi", "GetPort"]).stdout
    assert item.startswith("GetPort")
    assert "TransportProto.bind" in runner.invoke(app, ["abi", "TransportProto"]).stdout
    bad = runner.invoke(app, ["abi", "nonsense"])
    assert bad.exit_code == 2
    assert "nonsense" in bad.output
