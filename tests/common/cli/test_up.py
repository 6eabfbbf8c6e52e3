# SPDX-License-Identifier: MIT
"""`skbus up` on a real interface, in a namespace of its own: own address, and taken over."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
]

BIN = Path(sys.executable).parent

SCRIPT = """
set -e
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 10.1.0.1/24 dev v0
ip link set v0 up
ip link set v1 up
{before}
skbus up {flags} >"$SKBUS_DIR.out" 2>"$SKBUS_DIR.err" &
pid=$!
i=0
until grep -q SKBUS_DIR "$SKBUS_DIR.out"; do
    i=$((i + 1))
    if [ $i -gt 1200 ] || ! kill -0 $pid; then cat "$SKBUS_DIR.err" >&2; exit 1; fi
    sleep 0.05
done
cat "$SKBUS_DIR.out"
{during}
kill -TERM $pid 2>/dev/null || true
wait $pid || true
{after}
"""

PROBE = """
import socket
for address in {addresses}:
    s = socket.socket()
    s.settimeout(45)
    print("answer", s.connect_ex((address, 9)))
"""

REFUSED = "answer 111\n"


def probe(*addresses: str) -> str:
    """A shell command that asks each address for a RST."""
    code = PROBE.format(addresses=addresses).replace("'", '"')
    return f"{sys.executable} -c '{code}'"


def in_namespace(run: Path, **parts: str) -> str:
    """Run the script in a network namespace that is ours alone; its output."""
    enter = (
        "import os; from skbus.stack import holder; holder.make_namespaces(); "
        "os.execvp('sh', ['sh'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", enter],
        input=SCRIPT.format(**{"before": "", "during": "", "after": "", **parts}),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**os.environ, "SKBUS_DIR": str(run), "PATH": f"{BIN}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_address_of_our_own(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path / "r",
        flags="--dev v1 --addr 10.1.0.2/24",
        during=f"{probe('10.1.0.2')}\nskbus health --layer tcp --wait 60",
        after='test ! -e "$SKBUS_DIR" && echo nothing left',
    )
    assert "skbus is up on v1: 10.1.0.2/24" in out
    assert f"export SKBUS_DIR={tmp_path}/r" in out
    assert REFUSED in out
    assert "tcp answers (life 1)" in out
    assert "nothing left" in out


def test_the_interfaces_address_is_taken_over_and_given_back(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path / "r",
        before="ip addr add 10.1.0.2/24 dev v1\nip route add default via 10.1.0.9 dev v1",
        flags="--dev v1 --take-over",
        during=f"echo during; ip -o addr show dev v1; echo end\n{probe('10.1.0.2')}",
        after="echo after; ip -o addr show dev v1; ip route show default",
    )
    assert "skbus is up on v1: 10.1.0.2/24" in out
    during = out.partition("during\n")[2].partition("end\n")[0]
    assert "inet 10.1.0.2" not in during
    assert REFUSED in out
    after = out.partition("after\n")[2]
    assert "inet 10.1.0.2/24" in after
    assert "default via 10.1.0.9 dev v1" in after


def test_two_interfaces(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        '[[devices]]\nname = "v1"\naddr = "10.1.0.2/24"\n'
        '[[devices]]\nname = "v3"\naddr = "10.2.0.2/24"\n'
    )
    out = in_namespace(
        tmp_path / "r",
        before="ip link add v2 type veth peer name v3\nip addr add 10.2.0.1/24 dev v2\n"
        "ip link set v2 up\nip link set v3 up",
        flags=f"--config {file}",
        during=f"{probe('10.1.0.2', '10.2.0.2')}\nskbus health --wait 60",
    )
    assert out.count(REFUSED) == 2
    for process in ("nic.v1", "nic.v3", "ip", "tcp", "udp", "socket"):
        assert f"{process} answers" in out


def test_an_interface_without_a_link_comes_later(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path / "r",
        before="ip link set v1 down",
        flags="--dev v1 --addr 10.1.0.2/24",
        during=f"ip link set v1 up\n{probe('10.1.0.2')}",
    )
    assert "skbus is up on v1: 10.1.0.2/24 (as soon as it has a link)" in out
    assert REFUSED in out


def test_a_killed_up_leaves_no_process_and_the_address_comes_back(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path / "r",
        before="ip addr add 10.1.0.2/24 dev v1",
        flags="--dev v1 --take-over",
        during="kill -KILL $pid; wait $pid || true; ip -o addr show dev v1; echo killed",
        after="skbus lab down; ip -o addr show dev v1; ip link del v0",
    )
    killed, _, after = out.partition("killed\n")
    assert "inet 10.1.0.2" not in killed.partition("SKBUS_DIR")[2]
    assert "inet 10.1.0.2/24" in after
    assert not (tmp_path / "r").exists()
