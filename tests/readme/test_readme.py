# SPDX-License-Identifier: MIT
"""README.md as a newcomer follows it: each command that it prints, in its order, typed into a
terminal in a fresh clone. It works as root and as an ordinary user (`make readme` as either).

Nothing is typed but what the page prints, with these exceptions:

- `make test` is not run: this is one of the tests.
- The block "Containers" is `test_readme_containers.py`'s, which needs a Docker engine.
- The id after `logs --skb` is replaced by one that the lines before it show.
- What goes on until Ctrl-C gets Ctrl-C once it has printed what `CTRL_C` says.
- After a server was started with `&` the next command waits for what `SERVERS` says.
- `skbus up` finds its eth1 in a network namespace that is made for it, and goes on beside a ping.
- SKBUS_DIR names a run directory of the test's own, so that a lab of yours is left alone.
"""

import os
import re
import sys
from pathlib import Path
from typing import Final

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from terminal import ROOT, Terminal, assert_nothing_left, commands, sections

pytestmark = [pytest.mark.readme, pytest.mark.lab]

PAGE: Final = ROOT / "README.md"

EXPECT: Final = {
    "make demo": r"tcp_v4_rcv",
    "skbus lab up": r"10\.77\.0\.2",
    "skbus lab exec -- curl http://10.77.0.2/": r"<title>skbus</title>",
    "skbus lab exec -- ping -c 3 10.77.0.2": r"3 received",
    "skbus lab up --name bad": r"10\.77\.0\.2",
    "skbus lab exec --name bad -- ping": r"time=[4-9]\d\.\d",
    "skbus logs --flow :80": r"(?s)tcp_v4_rcv.*tcp_transmit_skb",
    "skbus logs --skb": r"(?s)napi_gro_receive.*ip_rcv.*tcp_v4_rcv",
    "skbus status": r"(?s)nic\.eth0.*socket",
    "skbus counters": r"IpInReceives +\d",
    "skbus proc": r"(?s)local_address.*Tcp: ",
    "skbus sysctl": r"tcp_sack",
    "skbus lab status": r"socket",
    "python3 <<'END'": r"200 OK",
    "skbus lab exec -- curl http://10.77.0.2:8001/": r"Directory listing",
    "skbus load smoke": r"(?s)every one is accounted for.*ok +errors == 0",
    "python examples/simulation/sawtooth.py": r"(?s)reno: .*cubic: ",
}
"""Beginning of a command -> what it prints at least; status 0 is asked of all."""

SERVERS: Final = {
    "skbus serve http --port 80 &": r"http server at 10\.77\.0\.2, port 80",
    "skbus lab exec -- python3 -m http.server 8000 &": r"Serving HTTP on",
    "python -m skbus.run -m http.server 8001 &": r"Serving HTTP on",
}

CTRL_C: Final = {
    "skbus logs -f": r"tcp_v4_rcv|ip_rcv|dev_queue_xmit",
    "skbus lab exec --stack -- tcpdump -ni eth0": r"listening on eth0",
}


def beginning(table: dict[str, str], command: str) -> str | None:
    """The value of the longest key with which the command begins."""
    keys = [key for key in table if command.startswith(key)]
    return table[max(keys, key=len)] if keys else None


def do(terminal: Terminal, command: str, shown: str = "", seconds: float = 300) -> str:
    """Type a command as printed, with the exceptions above; what it printed."""
    if command.startswith("skbus logs --skb"):
        found = re.search(r"tcp_v4_rcv +([0-9a-f]{12,16}) ", shown)
        assert found, f"no id of a packet in:\n{shown}"
        command = re.sub(r"[0-9a-f]{12,16}", found[1], command)
    until = beginning(CTRL_C, command)
    if until is not None:
        terminal.type(command)
        terminal.wait_for(until, seconds)
        text, status = terminal.ctrl_c()
        assert "Traceback" not in text, text
        assert status in (0, 130), f"{command}: status {status}\n{text}"
        return text
    text, status = terminal.run(command, seconds)
    if (ready := beginning(SERVERS, command)) is not None:
        terminal.wait_for(ready)
    assert status == 0, f"{command}: status {status}\n{text}"
    assert "Traceback" not in text, text
    expected = beginning(EXPECT, command)
    if expected is not None:
        assert re.search(expected, text), f"{command}: no {expected} in\n{text}"
    return text


def test_readme_fits_into_80_columns() -> None:
    links = re.compile(r"^(- )?!?\[.*\]\(.*\)[:,.]?")
    for line in PAGE.read_text().splitlines():
        assert len(line) <= 80 or links.match(line), line


def test_each_command_that_is_mapped_is_printed() -> None:
    """A table above that names what README does not print is out of date."""
    printed = [c for blocks in sections(PAGE).values() for b in blocks for c in commands(b)]
    for key in (*EXPECT, *SERVERS, *CTRL_C):
        assert any(c.startswith(key) for c in printed), key


@pytest.mark.parametrize(
    "heading",
    [
        "Try it",
        "A lab",
        "Looking inside",
        "Your program on our stack",
        "Load tests",
        "Without a network",
    ],
)
def test_as_printed(heading: str, terminal: Terminal) -> None:
    """In the order of the page: each section goes on where the one before it ended."""
    shown = ""
    for block in sections(PAGE)[heading]:
        for command in commands(block):
            if command == "make test":
                continue
            shown = do(terminal, command, shown)
    if heading == "Load tests":
        assert "smoke.html" in terminal.run("ls load-out").text


def test_nothing_is_left_behind(terminal: Terminal, environment: dict[str, str]) -> None:
    """README ends its labs; what it says of that is true."""
    assert_nothing_left(terminal, environment)


ETH1: Final = " && ".join(
    "ip " + what
    for what in (
        "link set lo up",
        "link add eth1 type veth peer name far",
        "link set eth1 up",
        "link set far up",
        "addr add 192.0.2.1/24 dev far",
    )
)
"""The interface, and the gateway beyond it, as the kernel's stack at the other end."""


def up_commands() -> list[str]:
    return [c for b in sections(PAGE)["On an interface of this machine"] for c in commands(b)]


@pytest.mark.parametrize("command", up_commands())
def test_on_an_interface_of_this_machine(
    command: str, clone: Path, environment: dict[str, str]
) -> None:
    """In a namespace where the user is root, as the page says."""
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    environment = {**environment, "SKBUS_DIR": environment["SKBUS_DIR"] + "-up"}
    if os.geteuid() != 0:
        environment["PATH"] += ":/usr/sbin:/sbin"
    with Terminal(clone, environment, *unshare) as terminal:
        assert terminal.run(ETH1).status == 0
        if "--take-over" in command:
            assert terminal.run("ip addr add 192.0.2.7/24 dev eth1").status == 0
        assert terminal.run(". .venv/bin/activate").status == 0
        terminal.run(command.partition("  #")[0] + " &")
        terminal.wait_for("export SKBUS_DIR=")
        pinged = terminal.run("ping -c 3 -i 0.3 192.0.2.7")
        assert "3 received" in pinged.text, pinged.text
        terminal.type("fg")
        terminal.wait_for("skbus up")
        text, status = terminal.ctrl_c()
        assert "Traceback" not in text, text
        assert status in (0, 130), text
        if "--take-over" in command:
            assert "192.0.2.7/24" in terminal.run("ip addr show dev eth1").text
