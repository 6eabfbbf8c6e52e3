# SPDX-License-Identifier: MIT
"""The stacks that are measured, each at the end of a cable whose other end is the Linux kernel.

    kernel   Linux - veth - Linux; iperf3 also runs on this veth
    skbus    Linux - veth - our five processes (`skbus lab`)
    compiled the same, as `make compiled` builds them
    fused    the same, with ip, tcp, udp and socket in one process
    pmd      Linux - TAP - pmd-pytcp

`peers` has more, in other languages.

A subject is brought up once and serves all rounds of the run. A subject that fails a round is
brought up anew. Linux is always the client and has the clock.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import web
from netns import NetNs, quiet

HERE: Final = Path(__file__).resolve().parent
CONGESTION: Final = "cubic"
"""Many machines default to bbr, whose pacing measures timers rather than stacks."""


class Workload(NamedTuple):
    """One kind of round."""

    name: str
    title: str
    unit: str
    serve: str
    """the order for the subject"""
    client: str
    """the order for Linux"""
    measured: str
    """the end whose count and clock make the figure: the one that received"""
    scale: float
    """from counted things per second to the unit"""
    gso_max_size: int = 0
    """longest super-segment that the subject's interface takes (BIG TCP); 0: the default"""


MBIT: Final = 8 / 1e6
WORKLOADS: Final = {
    w.name: w
    for w in (
        Workload("bulk_in", "bulk, from Linux", "Mbit/s", "serve_sink", "send", "serve", MBIT),
        Workload("bulk_out", "bulk, to Linux", "Mbit/s", "serve_source", "receive", "client", MBIT),
        Workload(
            "bulk_out_big",
            "the same, BIG TCP",
            "Mbit/s",
            "serve_source",
            "receive",
            "client",
            MBIT,
            524280,
        ),
        Workload("rr", "1-byte round trips", "1/s", "serve_echo", "ping", "client", 1.0),
        Workload(
            "crr",
            "connect-ask-close",
            "1/s",
            "serve_connections",
            "connections",
            "client",
            1.0,
        ),
        Workload(
            "udp_in",
            "64-byte datagrams in",
            "1/s",
            "serve_datagram_sink",
            "datagrams_send",
            "serve",
            1.0,
        ),
        Workload(
            "udp_out",
            "64-byte datagrams out",
            "1/s",
            "serve_datagram_source",
            "datagrams_receive",
            "client",
            1.0,
        ),
        Workload("http", "HTTP requests", "1/s", "", "", "client", 1.0),
    )
}


class BenchError(Exception):
    """A round or a subject failed; the text says why."""


class Round(NamedTuple):
    """The result of one round."""

    rate: float
    cpu: float
    """processors that the subject's processes kept busy, its application included"""
    detail: dict[str, Any]


class Process:
    """An agent behind pipes: one order, one answer, each with a deadline."""

    def __init__(self, command: list[str], env: Mapping[str, str] | None = None) -> None:
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        os.set_blocking(self._popen.stdout.fileno(), False)
        self._buffer = b""
        self.pid = self._popen.pid
        try:
            self.hear(20.0)
        except BenchError:
            self.close()
            raise

    def say(self, **order: Any) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(order).encode() + b"\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            raise BenchError(self._epitaph()) from None

    def hear(self, seconds: float) -> dict[str, Any]:
        """The next answer; BenchError after `seconds`, or where the agent reports an error."""
        assert self._popen.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._popen.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise BenchError(f"no answer within {seconds:g} s")
                data = os.read(self._popen.stdout.fileno(), 65536)
                if not data:
                    raise BenchError(self._epitaph())
                self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(answer["error"])
        return answer

    def _epitaph(self) -> str:
        assert self._popen.stderr is not None
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(2)
        os.set_blocking(self._popen.stderr.fileno(), False)
        text = (self._popen.stderr.read() or b"").decode(errors="replace").strip()
        return f"the agent ended with {self._popen.poll()}: {text.splitlines()[-1:] or ''}"

    def close(self) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._popen.wait(0.5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of some processes."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Subject:
    """A stack under test with the Linux client at the other end."""

    name = ""
    title = ""
    web_server = "it has no web server here"
    """why it has no HTTP round; "" where it has"""
    agent = HERE / "agent.py"
    """what runs at both ends"""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.address = ""
        self.server: Process | None = None
        self.client: Process | None = None
        self.client_prefix: list[str] = []
        """the words before a command that is to run on Linux at the other end"""
        self.web: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []
        self._port = 20000

    def missing(self) -> str:
        """Why the subject cannot be measured here; "" if it can."""
        return ""

    def lacks(self, workload: Workload) -> str:
        """Why it has no such round; "" if it has."""
        return (web.missing() or self.web_server) if workload.name == "http" else ""

    def compromises(self) -> dict[str, str]:
        """What is not there although the subject is measured -> why."""
        return {}

    def up(self) -> None:
        raise NotImplementedError

    def down(self) -> None:
        self.stack.close()
        self.server = self.client = self.web = None

    def facts(self) -> dict[str, Any]:
        return {}

    def round(self, workload: Workload, seconds: float, **order: Any) -> Round:
        """One round; BenchError where an end fails, hangs, or the ends count differently.

        order: further fields of both ends' orders.
        """
        if self.server is None:
            self.up()
        if workload.name == "http":
            return self._web_round(workload, seconds)
        server, client = self.server, self.client
        assert server is not None
        assert client is not None
        self._port = 20000 + (self._port - 19999) % 20000
        limit = 3 * seconds + 15
        common = {"port": self._port, "seconds": seconds, "congestion": CONGESTION, **order}
        before = cpu_seconds(self.pids)
        start = time.monotonic()
        server.say(op=workload.serve, **common)
        server.hear(limit)
        client.say(op=workload.client, host=self.address, **common)
        there = client.hear(limit)
        here = server.hear(limit)
        elapsed = time.monotonic() - start
        measured = here if workload.measured == "serve" else there
        if "udp" not in workload.name and here["bytes"] != there["bytes"]:
            raise BenchError(f"it counted {here['bytes']}, Linux {there['bytes']}")
        if not measured["bytes"] or measured["seconds"] <= 0:
            raise BenchError("nothing arrived")
        return Round(
            measured["bytes"] / measured["seconds"] * workload.scale,
            (cpu_seconds(self.pids) - before) / elapsed,
            {"subject": here, "linux": there},
        )

    def _web_round(self, workload: Workload, seconds: float) -> Round:
        """wrk asks, and the server answers that has answered the rounds before."""
        if why := self.lacks(workload):
            raise BenchError(why)
        self._start_web()
        before = cpu_seconds(self.pids)
        start = time.monotonic()
        found = web.wrk(self.client_prefix, self.address, seconds)
        elapsed = time.monotonic() - start
        return Round(
            found["bytes"] / found["seconds"] * workload.scale,
            (cpu_seconds(self.pids) - before) / elapsed,
            {"subject": {"bytes": found["bytes"]}, "linux": found},
        )

    def _web_command(self) -> tuple[list[str], Mapping[str, str]]:
        """Of the web server, and what its environment has besides."""
        raise NotImplementedError

    def _start_web(self) -> None:
        if self.web is None:
            command, env = self._web_command()
            self.web = web.start(self.stack, command, env)
            self.pids.append(self.web.pid)
            web.wait(self.client_prefix, self.address, self.web)

    def _agent(
        self,
        prefix: list[str],
        module: str,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> Any:
        agent = Process([*prefix, python, str(self.agent), "--socket", module], env)
        self.stack.callback(agent.close)
        return agent


def cable(stack: ExitStack, far_address: str = "10.79.0.2/24") -> tuple[NetNs, NetNs]:
    """Two namespaces with a veth between them, v0 (10.79.0.1) and v1. far_address: "" where not
    Linux, but a stack of its own is at v1."""
    near = NetNs()
    stack.callback(near.close)
    far = NetNs(beside=near)
    stack.callback(far.close)
    near.run("ip", "link", "add", "v0", "type", "veth", "peer", "v1", "netns", str(far.pid))
    for ns, dev, address in ((near, "v0", "10.79.0.1/24"), (far, "v1", far_address)):
        quiet(ns)
        if address:
            ns.run("ip", "addr", "add", address, "dev", dev)
        ns.run("ip", "link", "set", dev, "up")
    return near, far


def tap(stack: ExitStack) -> NetNs:
    """A namespace with a TAP, tap7, where Linux is 10.78.0.1."""
    ns = NetNs()
    stack.callback(ns.close)
    quiet(ns)
    ns.run("ip", "tuntap", "add", "tap7", "mode", "tap")
    ns.run("ip", "addr", "add", "10.78.0.1/24", "dev", "tap7")
    ns.run("ip", "link", "set", "tap7", "up")
    return ns


class Kernel(Subject):
    """Linux to Linux over a veth."""

    name = "linux"
    title = "Linux"

    def __init__(self, gso_max_size: int = 0) -> None:
        super().__init__()
        self._gso_max_size = gso_max_size

    def up(self) -> None:
        near, far = cable(self.stack)
        if self._gso_max_size:
            code = (
                "import socket, sys; from skbus.bus.gso_size import set_gso_ipv4_max_size;"
                "set_gso_ipv4_max_size(socket.if_nametoindex('v1'), int(sys.argv[1]))"
            )
            far.run(sys.executable, "-c", code, str(self._gso_max_size))
        self.address = "10.79.0.2"
        self.near, self.far = near, far
        self.client_prefix = near.prefix
        self.server = self._agent(far.prefix, "socket")
        self.client = self._agent(near.prefix, "socket")
        self.pids = [self.server.pid]

    def lacks(self, workload: Workload) -> str:
        if workload.name == "http":
            return web.missing() or web.missing_nginx()
        return ""

    def _web_command(self) -> tuple[list[str], Mapping[str, str]]:
        return [*self.far.prefix, *web.nginx(self.stack)], {}


class Iperf3(Subject):
    """The kernel's own figure for bulk: iperf3 on the veth of `Kernel`."""

    name = "iperf3"
    title = "Linux, iperf3"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def missing(self) -> str:
        return "" if _which("iperf3") else "iperf3 is not installed (apt install iperf3)"

    def lacks(self, workload: Workload) -> str:
        return "" if workload.name.startswith("bulk") else "it measures bulk alone"

    def round(self, workload: Workload, seconds: float, **order: Any) -> Round:
        kernel = self.kernel
        if kernel.server is None:
            kernel.up()
        server = kernel.far.popen(
            "iperf3", "-s", "-1", "-p", "5201", "--forceflush",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        with server:
            assert server.stdout is not None
            while (line := server.stdout.readline()) and "listening" not in line:
                pass
            reverse = ["-R"] if workload.name == "bulk_out" else []
            try:
                text = kernel.near.run(
                    "iperf3", "-c", kernel.address, "-p", "5201", "-J", "-C", CONGESTION,
                    "-t", str(max(1, round(seconds))), *reverse,
                )  # fmt: skip
            except RuntimeError as e:
                raise BenchError(str(e)) from None
            finally:
                server.terminate()
        end = json.loads(text)["end"]
        received = end["sum_received"]
        return Round(
            received["bits_per_second"] / 1e6,
            end["cpu_utilization_percent"]["remote_total"] / 100,
            {"bytes": received["bytes"], "retransmits": end["sum_sent"].get("retransmits")},
        )


def processes(pids: Mapping[str, int]) -> dict[str, int]:
    """The stack's processes of a lab; one that has several layers (--fuse) has all their names."""
    layers = {name: pid for name, pid in pids.items() if name not in ("holder", "peer")}
    return {
        ",".join(other for other in layers if layers[other] == pid) if pid else name: pid
        for name, pid in layers.items()
    }


class Skbus(Subject):
    """Our stack, in a lab of its own."""

    name = "skbus"
    title = "skbus"
    python = sys.executable
    web_server = ""
    env: Mapping[str, str] = {}
    """added to the environment of our processes"""

    def __init__(self, up_options: list[str], suffix: str = "") -> None:
        """suffix: of the lab's name, where there are several labs."""
        super().__init__()
        self._lab = f"bench{os.getpid()}{self.name}{suffix}"
        self._up_options = up_options
        self._status: dict[str, Any] = {}

    def _skbus(self, *arguments: str) -> str:
        command = str(Path(self.python).with_name("skbus"))
        done = subprocess.run(
            [command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **self.env},
        )
        if done.returncode:
            raise BenchError(f"skbus {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def up(self) -> None:
        self.stack.callback(self._skbus, "lab", "down", "--name", self._lab)
        text = self._skbus("lab", "up", "--name", self._lab, *self._up_options)
        status = self._status = json.loads(text.splitlines()[-1])
        self.address = status["address"]
        peer = self._enter(status)
        for setting in ("ip_local_port_range=10000 65000", "tcp_tw_reuse=1"):
            subprocess.run([*peer, "sysctl", "-q", "-w", f"net.ipv4.{setting}"], check=True)
        self.server = self._agent(
            [], "skbus.socket", {"SKBUS_DIR": status["run_dir"], **self.env}, self.python
        )
        self.client_prefix = peer
        self.client = self._agent(peer, "socket")
        self.layers = processes(status["pids"])
        self.run_dir = status["run_dir"]
        self.pids = [self.server.pid, *(pid for pid in self.layers.values() if pid)]

    def _enter(self, status: dict[str, Any]) -> list[str]:
        """What stands before a command that is to run at the lab's other end."""
        nsenter = ["nsenter", "-t", str(status["pids"]["peer"])]
        if not status["rootless"]:
            return [*nsenter, "--net", "--"]
        looked = "import importlib.util, sys; sys.exit(not importlib.util.find_spec(sys.argv[1]))"
        command = [self.python, "-P", "-c", looked, "skbus.stack.enter"]
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
            # an older stack, whose users are root in their labs
            return [*nsenter, "--user", "--preserve-credentials", "--net", "--"]
        return [str(self.python), "-P", "-m", "skbus.stack.enter", status["run_dir"], "peer"]

    def round(self, workload: Workload, seconds: float, **order: Any) -> Round:
        if self.server is None:
            self.up()
        assert self.server is not None
        application = self.server.pid
        if workload.name == "http":
            self._start_web()
            assert self.web is not None
            application = self.web.pid
        parts = {**self.layers, "application": application}
        before = {name: cpu_seconds([pid]) for name, pid in parts.items()}
        result = super().round(workload, seconds, **order)
        result.detail["cpu_seconds"] = {
            name: round(cpu_seconds([pid]) - before[name], 2) for name, pid in parts.items()
        }
        return result

    def _web_command(self) -> tuple[list[str], Mapping[str, str]]:
        serve = [str(Path(self.python).with_name("skbus")), "serve", "http"]
        return [*serve, "--port", str(web.PORT)], {"SKBUS_DIR": self.run_dir, **self.env}

    def another_client(self) -> Process:
        """One more process on Linux, because the descriptors of one bound its connections."""
        found: Process = self._agent(self.client_prefix, "socket")
        return found


class Compiled(Skbus):
    """Our stack as `make compiled` builds it."""

    name = "compiled"
    title = "skbus, compiled"
    python = str(HERE.parents[1] / ".venv-compiled" / "bin" / "python")
    env: Mapping[str, str] = {"PYTHONPATH": ""}

    def missing(self) -> str:
        return "" if os.path.exists(self.python) else "it is not there (make compiled)"


class Fused(Skbus):
    """Our stack with its layers in one process, compiled where there is a compiled build."""

    name = "fused"
    title = "skbus, fused"
    layers_fused = "ip,tcp,udp,socket"

    def __init__(self, up_options: list[str]) -> None:
        super().__init__([*up_options, "--fuse", self.layers_fused])
        self._why_interpreted = "it is not there"
        if os.path.exists(Compiled.python):
            self.python, self.env = Compiled.python, Compiled.env
            self._why_interpreted = "" if self._can_fuse() else "it is older than --fuse"
        if self._why_interpreted:
            self.python, self.env = Skbus.python, Skbus.env

    def _can_fuse(self) -> bool:
        return "--fuse" in self._skbus("lab", "up", "--help")

    def compromises(self) -> dict[str, str]:
        why = self._why_interpreted
        return {"fused compiled": f"{why} (make compiled); the row is interpreted"} if why else {}


class Pmd(Subject):
    """pmd-pytcp on a TAP."""

    name = "pmd"
    title = "pmd-pytcp"

    def missing(self) -> str:
        from importlib.util import find_spec

        if find_spec("pmd_pytcp") is None:
            return "pmd-pytcp is not installed (pip install -e '.[bench]')"
        return "" if os.path.exists("/dev/net/tun") else "/dev/net/tun is missing"

    def facts(self) -> dict[str, Any]:
        from importlib.metadata import version

        return {"version": version("pmd-pytcp")}

    def up(self) -> None:
        ns = tap(self.stack)
        self.address = "10.78.0.2"
        agent = [sys.executable, str(HERE / "pmd_agent.py"), "--address", "10.78.0.2/24"]
        self.server = Process([*ns.prefix, *agent])
        self.stack.callback(self.server.close)
        # pmd-pytcp probes its address for ten seconds (RFC 5227) before it answers ARP for it.
        give_up = time.monotonic() + 40
        while True:
            try:
                ns.run("ping", "-q", "-c", "1", "-W", "1", self.address)
                break
            except RuntimeError:
                if time.monotonic() > give_up:
                    raise BenchError("pmd-pytcp answers no ping for 40 s") from None
        self.client_prefix = ns.prefix
        self.client = self._agent(ns.prefix, "socket")
        self.pids = [self.server.pid]


def _which(tool: str) -> bool:
    from shutil import which

    return which(tool) is not None
