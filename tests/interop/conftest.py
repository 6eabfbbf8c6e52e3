# SPDX-License-Identifier: MIT
"""Labs, ends and tools for the tests against the Linux kernel and against real tools.

A lab is brought up once a session for each kind of cable, and must be as clean after the last test
as it was before the first. `lab.ours(...)` and `lab.linux(...)` run an end (see `end.py`) on our
stack and on the kernel's; `lab.tool(...)` runs a program in the peer's namespace.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.stack import lab
from skbus.stack.enter import prefix

HERE = Path(__file__).resolve().parent
SKBUS = Path(sys.executable).with_name("skbus")


class End:
    """One end of a test, in a process of its own."""

    def __init__(self, name: str, command: list[str], env: dict[str, str]) -> None:
        self.name = name
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
        )
        self.pid = self._popen.pid
        self._lines: list[dict[str, Any]] = []
        self._buffer = b""

    def heard(self, key: str, seconds: float = 60.0) -> Any:
        """Wait until the end tells `key`; fails with the end's own words where it does not."""
        assert self._popen.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._popen.stdout, selectors.EVENT_READ)
            while True:
                for line in self._lines:
                    if key in line:
                        return line[key]
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    pytest.fail(f"{self.name}: no {key!r} within {seconds:g} s")
                data = os.read(self._popen.stdout.fileno(), 65536)
                if not data:
                    self._popen.wait(60)
                    assert self._popen.stderr is not None
                    error = self._popen.stderr.read().decode(errors="replace")
                    pytest.fail(f"{self.name} ended with {self._popen.returncode}:\n{error}")
                *lines, self._buffer = (self._buffer + data).split(b"\n")
                self._lines += [json.loads(line) for line in lines]

    def go_on(self) -> None:
        """Let an end that waits for the test go on."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(b"\n")
        self._popen.stdin.flush()

    def result(self, seconds: float = 60.0) -> Any:
        """What its function returned."""
        found = self.heard("result", seconds)
        self._popen.wait(60)
        return found

    def close(self) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()


def rss(pid: int) -> int:
    """Resident memory of a process without what it shares (the pool), in KiB."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["RssAnon"].split()[0])


class Cable:
    """A stack under test at one end, the Linux kernel at the other."""

    address: str
    """of the stack under test"""
    peer_address: str
    peer: list[str]
    """what to put before a command that runs at the kernel's end"""
    dev: str
    peer_dev: str
    inside: list[str]
    """the same for the end of the stack under test"""
    under_test: tuple[str, list[str], str, dict[str, str]]
    """its name, how to enter it, its socket module, and its environment"""
    file = "endpoints"
    """where the functions lie that `ours` and `linux` run; see the fixture `_file_of_ends`"""

    def __init__(self) -> None:
        self.ends = ExitStack()

    def ours(self, function: str, **arguments: Any) -> End:
        """Start an end on the stack under test."""
        return self._end(*self.under_test, function, arguments)

    def linux(self, function: str, **arguments: Any) -> End:
        """Start an end on the kernel's stack, at the other end of the cable."""
        return self._end("peer", self.peer, "socket", {}, function, arguments)

    def _end(
        self,
        who: str,
        prefix: list[str],
        module: str,
        env: dict[str, str],
        function: str,
        arguments: dict[str, Any],
        file: str = "",
    ) -> End:
        program = [sys.executable, str(HERE / "end.py"), "--socket", module, file or self.file]
        end = End(f"{function} ({who})", [*prefix, *program, function, json.dumps(arguments)], env)
        self.ends.callback(end.close)
        return end

    def serve(self, kind: str, port: int) -> subprocess.Popen[bytes]:
        """A sample server on the stack under test, ready; ended after the test."""
        raise NotImplementedError

    def _ready(self, server: subprocess.Popen[bytes], port: int) -> subprocess.Popen[bytes]:
        self.ends.callback(_end_process, server)
        wanted = {"host": self.address, "port": port, "seconds": 45.0}
        waiter = self._end("peer", self.peer, "socket", {}, "wait_listening", wanted, "endpoints")
        if not waiter.result()["listening"]:
            server.terminate()
            assert server.stderr is not None
            pytest.fail(f"{server.args!r} does not listen: {server.stderr.read()!r}")
        return server

    def tool(self, *command: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a program at the kernel's end."""
        return subprocess.run(
            [*self.peer, *command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def pings(self, count: int, *options: str, to: str = "") -> str:
        """Ping until each echo is answered, or an error is, but three times at most; what the last
        ping said.

        ping waits for the last answer only twice as long as any other took, which on a busy
        machine is not long."""
        for _ in range(3):
            done = self.tool("ping", "-c", str(count), *options, to or self.address)
            if f" {count} received" in done.stdout or " errors," in done.stdout:
                break
        return done.stdout

    def _holder(self, enter: list[str]) -> int:
        """A process in a network namespace of its own; it ends with `ends`."""
        holder = subprocess.Popen(
            [*enter, "unshare", "--net", "sh", "-c", "echo up; cat > /dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.ends.callback(_close_holder, holder)
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            raise RuntimeError("cannot make a network namespace")
        return holder.pid

    def down(self) -> None:
        self.ends.close()


class Lab(Cable):
    """Our stack under test."""

    def __init__(self, name: str, *options: str) -> None:
        super().__init__()
        self.name = name
        done = subprocess.run(
            [SKBUS, "lab", "up", "--name", name, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"skbus lab up {' '.join(options)}: {done.stderr.strip()}")
        status = json.loads(done.stdout.splitlines()[-1])
        self.run = RunDir(status["run_dir"])
        self.env = {"SKBUS_DIR": status["run_dir"]}
        self.address = status["address"]
        self.peer_address = status["peer_address"]
        self.dev, self.peer_dev = status["dev"], status["peer_dev"]
        pids = status["pids"]
        self.layers: dict[str, int] = {k: v for k, v in pids.items() if k not in ("holder", "peer")}
        if status["rootless"]:
            self.peer = prefix(self.run.path, "peer")
            self.inside = prefix(self.run.path, "stack")
        else:
            self.peer = ["nsenter", "-t", str(pids["peer"]), "--net", "--"]
            self.inside = ["nsenter", "-t", str(pids["holder"]), "--net", "--"]
        self.under_test = ("skbus", [], "skbus.socket", self.env)

    def down(self) -> None:
        super().down()
        subprocess.run([SKBUS, "lab", "down", "--name", self.name], check=True, capture_output=True)

    def serve(self, kind: str, port: int) -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            [SKBUS, "serve", kind, "--port", str(port)],
            env={**os.environ, **self.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        return self._ready(server, port)

    def layer_status(self, layer: str) -> Any:
        """What a layer says of itself."""
        return ctl_call(self.run, layer, "status", seconds=60.0)

    def counters(self, layer: str) -> dict[str, int]:
        """A layer's SNMP counters that are not zero."""
        found: dict[str, int] = ctl_call(self.run, layer, "counters", seconds=60.0)
        return found

    def memory(self) -> dict[str, int]:
        """Anonymous resident memory of each layer, KiB."""
        return {name: rss(pid) for name, pid in self.layers.items()}

    def alive(self) -> bool:
        """Whether every process that came up is the one that is there now."""
        now = lab.status(self.run)["pids"]
        return all(now[k] == v for k, v in self.layers.items())

    def empty(self) -> bool:
        """No socket anywhere but in TIME_WAIT, no byte of a payload in the pool."""
        status = {name: self.layer_status(name) for name in self.layers}
        sockets = status["socket"]["core"]
        left = [sockets[key] for key in ("clients", "files", "socks", "rmem", "wmem", "lent")]
        left += [s["core"]["sockets"] for name, s in status.items() if name.startswith("tcp")]
        left += [len(status["udp"]["core"]["sockets"])]
        # A nic keeps one place at hand for the next frame.
        left += [s["pool_in_use"] for name, s in status.items() if not name.startswith("nic.")]
        left += [s["pool_in_use"] > 1 for name, s in status.items() if name.startswith("nic.")]
        return not any(left)

    def check(self) -> None:
        """After a test: nobody has died (the supervisor starts who dies anew, so that the test
        itself may not have noticed), and every process accounts for its skbs."""
        self.ends.close()
        if not self.alive():
            told = "".join(
                f"\n{path.name}:\n{path.read_text(errors='replace')[-3000:]}"
                for path in sorted(self.run.log_dir.glob("*.err"))
                if path.stat().st_size
            )
            now = lab.status(self.run)
            self.layers = {k: v for k, v in now["pids"].items() if k in self.layers and v}
            pytest.fail(f"a process of the stack has died: {told}")
        for name in self.layers:
            told = self.layer_status(name)["conservation"]
            come = told["born"] + told["received"]
            gone = told["sent"] + told["consumed"] + told["dropped"] + told["held"]
            assert come == gone, f"{name} does not account for every skb: {told}"


class Reference(Cable):
    """The kernel under test: shows that a test asks for what Linux does."""

    def __init__(self) -> None:
        super().__init__()
        root = os.geteuid() == 0
        first = self._holder([] if root else ["unshare", "--user", "--map-root-user"])
        user = [] if root else ["--user", "--preserve-credentials"]
        beside = ["nsenter", "-t", str(first), *user, "--"] if user else []
        second = self._holder(beside)
        self.peer = ["nsenter", "-t", str(first), *user, "--net", "--"]
        self.inside = ["nsenter", "-t", str(second), *user, "--net", "--"]
        self.address, self.peer_address = "10.77.0.2", "10.77.0.1"
        self.dev, self.peer_dev = "eth0", "veth0"
        self.under_test = ("Linux", self.inside, "socket", {})
        add = f"ip link add veth0 type veth peer eth0 netns {second}"
        subprocess.run([*self.peer, *add.split()], check=True)
        for enter, dev, address in (
            (self.peer, "veth0", "10.77.0.1/24"),
            (self.inside, "eth0", "10.77.0.2/24"),
        ):
            for command in (
                "sysctl -q -w net.ipv6.conf.all.disable_ipv6=1",
                f"ip addr add {address} dev {dev}",
                f"ip link set {dev} up",
                "ip link set lo up",
                "sysctl -q -w net.ipv4.ping_group_range=0\t0",  # all that a user namespace may say
            ):
                subprocess.run([*enter, *command.split(" ")], check=True)
        _have_links((self.peer, "veth0"), (self.inside, "eth0"))

    def serve(self, kind: str, port: int) -> subprocess.Popen[bytes]:
        if kind != "http":
            raise NotImplementedError(kind)
        server = subprocess.Popen(
            [*self.inside, sys.executable, "-m", "http.server", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        return self._ready(server, port)


class Router(Cable):
    """Two Linux hosts, each in a namespace of its own, and between them the router under test:

        left 10.81.0.1 == 10.81.0.254 eth0 | router | eth1 10.82.0.254 == 10.82.0.1 right

    All of 10.83.0.0/24 is right as well, and the router's route to it takes 1300 bytes.
    203.0.113.0/24 is behind a neighbour of left's, 198.51.100.0/24 is forbidden, and nothing else
    is known to the router.
    """

    LEFT = "10.81.0.1"
    NEAR = "10.81.0.254"
    FAR = "10.82.0.254"
    RIGHT = "10.82.0.1"

    def __init__(self) -> None:
        super().__init__()
        root = os.geteuid() == 0
        first = self._holder([] if root else ["unshare", "--user", "--map-root-user"])
        user = [] if root else ["--user", "--preserve-credentials"]
        beside = ["nsenter", "-t", str(first), *user, "--"] if user else []
        pids = (first, self._holder(beside), self._holder(beside))
        enter = [["nsenter", "-t", str(pid), *user, "--net", "--"] for pid in pids]
        self.peer, self.inside, self.other = enter
        self.address = self.NEAR
        for side, dev, address, gateway in (
            (self.peer, "eth0", f"{self.LEFT}/24", self.NEAR),
            (self.other, "eth1", f"{self.RIGHT}/24", self.FAR),
        ):
            self._do(side, "sysctl -q -w net.ipv6.conf.all.disable_ipv6=1")
            self._do(side, f"ip link add veth0 type veth peer {dev} netns {pids[1]}")
            self._do(side, f"ip addr add {address} dev veth0")
            self._do(side, "ip link set veth0 up")
            self._do(side, "ip link set lo up")
            self._do(side, f"ip route add default via {gateway}")
            self._do(self.inside, f"sysctl -q -w net.ipv6.conf.{dev}.disable_ipv6=1")
            self._do(self.inside, f"ip link set {dev} up")
        self._do(self.other, "ip addr add 10.83.0.1/24 dev lo")
        _have_links((self.peer, "veth0"), (self.inside, "eth0"))
        _have_links((self.other, "veth0"), (self.inside, "eth1"))
        self._narrow = 0

    def narrow(self) -> str:
        """Right, by the path of 1300 bytes, at an address whose path MTU nobody knows yet."""
        self._narrow += 1
        return f"10.83.0.{self._narrow}"

    def _do(self, side: list[str], command: str) -> None:
        subprocess.run([*side, *command.split()], check=True)

    def right(self, function: str, **arguments: Any) -> End:
        """Start an end on the right host (`linux` is the left one)."""
        return self._end("right", self.other, "socket", {}, function, arguments)

    def check(self) -> None:
        self.ends.close()


class LinuxRouter(Router):
    """The kernel as the router: shows that a test asks for what Linux does."""

    def __init__(self) -> None:
        super().__init__()
        for command in (
            f"ip addr add {self.NEAR}/24 dev eth0",
            f"ip addr add {self.FAR}/24 dev eth1",
            "ip link set lo up",
            "sysctl -q -w net.ipv4.ip_forward=1",
            f"ip route add 10.83.0.0/24 via {self.RIGHT} mtu 1300",
            "ip route add 203.0.113.0/24 via 10.81.0.3",
            "ip route add prohibit 198.51.100.0/24",
        ):
            self._do(self.inside, command)
        self.under_test = ("Linux", self.inside, "socket", {})


class OurRouter(Router):
    """Our stack as the router: `skbus up` with two devices."""

    CONFIG = """
        [[devices]]
        name = "eth0"
        addr = "10.81.0.254/24"
        [[devices]]
        name = "eth1"
        addr = "10.82.0.254/24"
        [[routes]]
        dst = "10.83.0.0/24"
        gateway = "10.82.0.1"
        mtu = 1300
        [[routes]]
        dst = "203.0.113.0/24"
        gateway = "10.81.0.3"
        [[routes]]
        dst = "198.51.100.0/24"
        type = "prohibit"
        [sysctl]
        "net.ipv4.ip_forward" = 1
    """

    def __init__(self, where: Path) -> None:
        super().__init__()
        self._do(self.inside, "sysctl -q -w net.ipv4.conf.all.arp_ignore=8")
        file = where / "router.toml"
        file.write_text(self.CONFIG)
        self.run = RunDir(where / "run")
        env = {"SKBUS_DIR": str(self.run.path)}
        self.under_test = ("skbus", [], "skbus.socket", env)
        with (where / "err").open("wb") as err:
            stack = subprocess.Popen(
                [*self.inside, SKBUS, "up", "--config", str(file)],
                env={**os.environ, **env},
                stdout=subprocess.PIPE,
                stderr=err,
            )
        self.ends.callback(_end_process, stack)
        assert stack.stdout is not None
        with stack.stdout as told:
            if not any(line.startswith(b"export SKBUS_DIR=") for line in told):
                raise RuntimeError(f"skbus up: {(where / 'err').read_text()}")

    def check(self) -> None:
        """Afterwards every process accounts for its skbs."""
        super().check()
        for name in ("nic.eth0", "nic.eth1", "ip", "tcp", "udp", "socket"):
            told = ctl_call(self.run, name, "status", seconds=60.0)["conservation"]
            come = told["born"] + told["received"]
            gone = told["sent"] + told["consumed"] + told["dropped"] + told["held"]
            assert come == gone, f"{name} does not account for every skb: {told}"


def _have_links(*devices: tuple[list[str], str]) -> None:
    """Wait until interfaces have their links: the kernel sees to that some time after it was told
    to set them up, and loses what is sent until then."""
    for enter, dev in devices:
        command = [*enter, "ip", "link", "show", "dev", dev]

        def there(command: list[str] = command) -> bool:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            return " state UP " in done.stdout

        until(there, 60.0, f"{dev} has a link")


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def _close_holder(holder: subprocess.Popen[bytes]) -> None:
    for pipe in (holder.stdin, holder.stdout):
        assert pipe is not None
        pipe.close()
    holder.wait(60)


def _end_process(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stderr is not None:
        process.stderr.close()


C = TypeVar("C", bound=Cable)


def _until_the_end(cable: C) -> Iterator[C]:
    """A fixture's cable, taken down when the fixture ends."""
    try:
        yield cable
    finally:
        cable.down()


def _lab(kind: str, *options: str) -> Iterator[Lab]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    yield from _until_the_end(Lab(f"t{os.getpid()}{worker}{kind}", *options))


@pytest.fixture(autouse=True)
def _file_of_ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends of a test lie in the file that its marker `ends` names, or in `endpoints.py`."""
    marker = request.node.get_closest_marker("ends")
    if marker is not None:
        monkeypatch.setattr(Cable, "file", marker.args[0])


@pytest.fixture(scope="module", params=[3])
def sharded_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A cable that does nothing to packets, and tcp in several processes."""
    yield from _lab(f"s{request.param}", "--tcp-shards", str(request.param))


@pytest.fixture(scope="module")
def big_lab() -> Iterator[Lab]:
    """A cable that takes super-segments of 512 KB from us (BIG TCP)."""
    yield from _lab("b", "--gso-max-size", "524280")


@pytest.fixture(scope="session")
def clean_lab() -> Iterator[Lab]:
    """A cable that does nothing to packets."""
    yield from _lab("c", "--sysctl", "net.ipv4.ping_group_range=0 2147483647")


@pytest.fixture(scope="session")
def rough_lab() -> Iterator[Lab]:
    """A cable that does everything to packets, in both directions; the same each time."""
    yield from _lab(
        "r", "--loss", "5%", "--reorder", "10%", "--dup", "1%", "--corrupt", "0.1%", "--seed", "7"
    )


@pytest.fixture(scope="session")
def plain_lab() -> Iterator[Lab]:
    """A cable without offload at either end: each packet is on the wire as it would be on a real
    one, with its checksums filled in and none longer than the MTU."""
    if shutil.which("ethtool") is None:
        pytest.skip("ethtool is not installed (apt install ethtool): needed to turn offload off")
    for found in _lab("p"):
        _without_offload(found)
        yield found


def _without_offload(cable: Cable) -> None:
    features = [word for f in ("tx", "tso", "gso", "gro") for word in (f, "off")]
    for enter, dev in ((cable.peer, cable.peer_dev), (cable.inside, cable.dev)):
        subprocess.run([*enter, "ethtool", "-K", dev, *features], check=True, capture_output=True)


@pytest.fixture
def plain_reference() -> Iterator[Reference]:
    """Linux at both ends of a cable without offload."""
    for reference in _until_the_end(Reference()):
        _without_offload(reference)
        yield reference


@pytest.fixture(scope="session")
def reference_cable() -> Iterator[Reference]:
    """Linux at both ends."""
    yield from _until_the_end(Reference())


def _between_tests(found: Router) -> Iterator[Router]:
    """The namespaces are kept: they close with the session."""
    kept = found.ends.pop_all()
    try:
        yield found
        found.check()
    finally:
        found.ends.close()
        found.ends = kept


@pytest.fixture(scope="session")
def our_router_cable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurRouter]:
    yield from _until_the_end(OurRouter(tmp_path_factory.mktemp("router")))


@pytest.fixture(scope="session")
def linux_router_cable() -> Iterator[LinuxRouter]:
    yield from _until_the_end(LinuxRouter())


@pytest.fixture
def our_router(our_router_cable: OurRouter) -> Iterator[Router]:
    """Our stack between two hosts."""
    yield from _between_tests(our_router_cable)


@pytest.fixture(params=["skbus", "linux"])
def router(request: pytest.FixtureRequest) -> Iterator[Router]:
    """Our stack between two hosts, and then Linux in its place."""
    whose = "our" if request.param == "skbus" else "linux"
    yield from _between_tests(request.getfixturevalue(f"{whose}_router_cable"))


@pytest.fixture(name="lab")
def _clean(clean_lab: Lab) -> Iterator[Lab]:
    """The clean lab, with this test's ends and servers gone after it."""
    yield clean_lab
    clean_lab.check()


@pytest.fixture
def plain(plain_lab: Lab) -> Iterator[Lab]:
    """The lab without offload, likewise."""
    yield plain_lab
    plain_lab.check()


@pytest.fixture
def reference(reference_cable: Reference) -> Iterator[Reference]:
    """Linux at both ends, likewise. (Its namespaces are kept: they close with the session.)"""
    kept = reference_cable.ends.pop_all()
    yield reference_cable
    reference_cable.ends.close()
    reference_cable.ends = kept


@pytest.fixture(params=["clean", "rough"])
def any_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Our stack on the clean cable, and on the rough one."""
    found: Lab = request.getfixturevalue(f"{request.param}_lab")
    yield found
    found.check()


@pytest.fixture(params=["skbus", "linux"])
def cable(request: pytest.FixtureRequest) -> Cable:
    """Our stack, and then Linux in its place: what is asked of ours, Linux does too."""
    found: Cable = request.getfixturevalue("lab" if request.param == "skbus" else "reference")
    return found


@pytest.fixture
def need() -> Callable[..., None]:
    """Skip a test whose tool is not there, and say which package has it."""

    def check(program: str, package: str = "") -> None:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt install {package or program})")

    return check


@pytest.fixture
def port(unused: Iterator[int]) -> int:
    """A port that no other test of the session has used."""
    return next(unused)


@pytest.fixture
def ports(unused: Iterator[int]) -> Iterator[int]:
    """As many of those as one takes."""
    return unused


@pytest.fixture(scope="session")
def unused() -> Iterator[int]:
    return iter(range(7001, 9999))


@pytest.fixture
def poll() -> Callable[[Callable[[], bool], float, str], None]:
    """`until`: poll a condition."""
    return until
