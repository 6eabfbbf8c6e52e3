# SPDX-License-Identifier: MIT
"""A run directory on a tmpfs that somebody fills: the stack goes on with the memory that it has.

Each test is a shell in a mount namespace of its own, with a small tmpfs; the lab is up in that.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skbus.bus.pooldir import PoolDir
from skbus.core.pool import STEP

pytestmark = pytest.mark.lab

BIN = Path(sys.executable).parent


def shell(place: Path, size: str, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script where `place` is a tmpfs of that size; SKBUS_DIR lies in it."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f"set -e\nmount -t tmpfs -o size={size},mode=0700 tmpfs {place}\n"
    done = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", mount + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={
            **os.environ,
            "SKBUS_DIR": str(place / "r"),
            "PLACE": str(place),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
        },
    )
    assert "Traceback" not in done.stderr, done.stderr + done.stdout[-5000:]
    return done


FUNCTIONS = """
fill() { dd if=/dev/zero of="$PLACE/fill" bs=4096 2>/dev/null || true; }
pid() { skbus lab status --json | $PYTHON -c '
import json, sys
print(json.load(sys.stdin)["pids"][sys.argv[1]])' "$1"; }
until_new() {
    i=0
    while now=$(pid "$1"); [ "$now" = "$2" ] || [ "$now" = None ]; do
        i=$((i + 1)); [ $i -lt 200 ] || { echo "$1 does not come back" >&2; exit 1; }
        sleep 0.1
    done
}
get() { skbus lab exec -- $PYTHON -c '
import http.client, sys
c = http.client.HTTPConnection("10.77.0.2", 80, timeout=60)
c.request("GET", "/bytes/" + sys.argv[1])
print("got", len(c.getresponse().read()))' "$1"; }
status() { skbus status --json; echo; }
"""


def told(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_stack_survives_and_says_so(tmp_path: Path) -> None:
    done = shell(
        tmp_path,
        "40m",
        FUNCTIONS
        + """
skbus lab up >/dev/null
trap 'rm -f "$PLACE/fill"; kill $server 2>/dev/null; skbus lab down' EXIT
skbus serve http --port 80 >/dev/null & server=$!
i=0; until get 10 2>/dev/null; do i=$((i + 1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done
fill
get 3000000
get 20000000
status
for layer in nic.eth0 ip udp; do
    old=$(pid $layer); kill -9 $old; until_new $layer $old
done
skbus health --wait 60 >/dev/null
get 1000000
skbus sysctl net.ipv4.tcp_sack=0 || echo "refused: $?"
skbus log-level info >/dev/null || echo "refused: $?"
rm "$PLACE/fill"
get 20000000
cat $SKBUS_DIR/log/*.jsonl
status
""",
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    got = [line for line in done.stdout.splitlines() if line.startswith("got ")]
    assert got[-4:] == ["got 3000000", "got 20000000", "got 1000000", "got 20000000"]
    full, after = (
        told(line) for line in done.stdout.splitlines() if line.startswith('{"nic.eth0"')
    )
    assert {name: layer["epoch"] for name, layer in full.items()} == dict.fromkeys(full, 1)
    lives = {"nic.eth0": 2, "ip": 2, "tcp": 1, "udp": 2, "socket": 1}
    assert {name: layer["epoch"] for name, layer in after.items()} == lives
    assert sum(layer["pool_no_room"] for layer in full.values()) > 0
    assert sum(layer["pool_reserved"] for layer in full.values()) < 40 << 20


def test_no_room_at_the_start_is_said(tmp_path: Path) -> None:
    done = shell(
        tmp_path,
        "1m",
        """
skbus lab up || echo "status $?"
ls -A "$PLACE"
""",
    )
    assert done.stdout == "status 1\n", "nothing is left"
    assert "No space left on device" in done.stderr or "no room" in done.stderr


def test_a_region_has_the_memory_that_it_needs_and_no_more(tmp_path: Path) -> None:
    done = shell(
        tmp_path,
        "4m",
        """
exec $PYTHON -c '
import os, sys
from pathlib import Path
from skbus.bus.pooldir import PoolDir
place = Path(sys.argv[1])
said = []
directory = PoolDir(place)
region = directory.create(1, ((2048, 4096), (65536, 64)))
region.told = said.append
small = [region.put(bytes(2048)) for _ in range(300)]
assert all(small), "two steps"
fill = os.open(place / "fill", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(fill, 0, os.statvfs(place).f_bavail * 4096)
# all that it has is used, and then there is nothing: no signal
more = [region.put(b"x" * 2048) for _ in range(1000)]
print(sum(m is not None for m in more), region.exhausted, len(said), region.no_room > 0)
assert region.put(bytes(60000)) is None
pool = directory.pool()
for place_ in small: pool.free(place_)
print(sum(region.put(b"y" * 2048) is not None for _ in range(300)))
os.ftruncate(fill, 0)
print(sum(region.put(b"z" * 60000) is not None for _ in range(100)) > 0, said)
' "$PLACE"
""",
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first == f"{2 * STEP // 2048 - 300} {1000 - 2 * STEP // 2048 + 300} 1 True"
    assert second == "300"
    assert third.startswith("True ['no memory for the pool: No space left on device;")


def test_an_adopted_region_has_the_memory_of_what_is_in_use(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    directory = PoolDir(tmp_path)
    classes = ((2048, 4096),)
    first = directory.adopt_or_create(1, classes)
    assert first.reserved() == STEP
    places = [first.put(b"x") for _ in range(600)]
    assert first.reserved() == 3 * STEP
    for place in places[:500]:
        assert place is not None
        first.free(place[1], place[2])
    again = directory.adopt_or_create(1, classes)
    assert (again.in_use(), again.reserved()) == (100, 600 * 2048)
    assert all(again.put(b"y") for _ in range(1000))
    assert (again.in_use(), again.exhausted) == (1100, 0)
    first.close()
    again.close()
