# SPDX-License-Identifier: MIT
"""What `make demo` shows: a page each way between the Linux kernel and our stack. It also shows the
path of one request through the processes, from their logs.

Called by `skbus demo`. `python -m skbus.cli.demonstration URL` is the part that runs httpx on our
stack.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from skbus.bus import log
from skbus.bus.linux import die_with_parent
from skbus.bus.rundir import ENV, RunDir
from skbus.stack import lab

PORT: Final = 80
PEER_PORT: Final = 8000
PAGE: Final = "<h1>This page came from the Linux kernel's stack.</h1>\n"
_START_TIME: Final = 60.0

_FETCH: Final = """
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
c.request("GET", "/")
r = c.getresponse()
print(f"HTTP {r.status}, {len(r.read())} bytes")
"""


class DemoError(Exception):
    """A step of the demo went wrong; the text says which, and what the commands said."""


def say(text: str = "") -> None:
    """For the person who watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run_demo() -> None:
    """The demo. DemoError or LabError where something is wrong; nothing is left in any case."""
    started = time.monotonic()
    run = lab.lab_dir(f"demo{os.getpid()}")
    with ExitStack() as stack:
        stack.callback(lab.down, run)
        say(f"$ skbus lab up --name {run.path.name} --log-level debug")
        say(json.dumps(lab.up(run, _config(run), tied=True)))
        _from_linux(run, stack)
        _from_us(run, stack)
        _path(run)
        say(f"\n$ skbus lab down --name {run.path.name}")
    say(f"done in {time.monotonic() - started:.1f} s; nothing is left running")


def _config(run: RunDir) -> str:
    from skbus.stack.config import Config

    device = {
        "name": lab.DEV,
        "addr": f"{lab.ADDRESS}/{lab.PREFIX}",
        "gateway": lab.PEER_ADDRESS,
    }
    flags = {"devices": [device], "log": {"level": "debug"}, "run_dir": str(run.path)}
    return Config.load(None, flags, {}).to_json()


@contextmanager
def _process(argv: Sequence[str | Path], env: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    me = os.getpid()
    with subprocess.Popen(
        argv,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM, me),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _skbus(*argv: str) -> list[str]:
    return [sys.executable, "-P", "-c", "from skbus.cli import main; main()", *argv]


def _exec(run: RunDir, *argv: str) -> list[str]:
    return _skbus("lab", "exec", "--name", run.path.name, "--", *argv)


def _until(
    what: str,
    server: "subprocess.Popen[str]",
    attempt: Callable[[], "subprocess.CompletedProcess[str]"],
) -> str:
    """Try until a server answers; its output then. DemoError with the last error if it does not."""
    deadline = time.monotonic() + _START_TIME
    while True:
        done = attempt()
        if done.returncode == 0:
            return done.stdout.strip()
        if server.poll() is not None and server.stderr is not None:
            raise DemoError(f"{what}: the server has ended: {server.stderr.read().strip()}")
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: {done.stderr.strip() or done.stdout.strip()}")
        time.sleep(0.1)


def _run(argv: list[str], env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=30)


def _from_linux(run: RunDir, stack: ExitStack) -> None:
    """curl, or the standard library, on Linux fetches from our stack."""
    env = {**os.environ, ENV: str(run.path)}
    say(f"\n$ skbus serve http --port {PORT} &")
    server = stack.enter_context(_process(_skbus("serve", "http", "--port", str(PORT)), env))
    url = f"http://{lab.ADDRESS}/"
    if shutil.which("curl"):
        form = "HTTP %{http_code}, %{size_download} bytes\\n"
        command = ["curl", "-sS", "-o", os.devnull, "-w", form, "--max-time", "10", url]
        say(f"$ skbus lab exec -- curl {url}")
    else:
        command = [sys.executable, "-P", "-c", _FETCH, lab.ADDRESS, str(PORT)]
        say(f"$ skbus lab exec -- python: http.client, GET {url}   (curl is not installed)")
    say(_until("Linux fetches from us", server, lambda: _run(_exec(run, *command), env)))


def _from_us(run: RunDir, stack: ExitStack) -> None:
    """httpx on our stack fetches from Python's http.server on Linux."""
    env = {**os.environ, ENV: str(run.path)}
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="skbus-demo-"))
    (Path(directory) / "index.html").write_text(PAGE)
    say(f"\n$ skbus lab exec -- python -m http.server {PEER_PORT} &")
    serve = [sys.executable, "-P", "-m", "http.server", str(PEER_PORT), "--directory", directory]
    server = stack.enter_context(_process(_exec(run, *serve), env))
    url = f"http://{lab.PEER_ADDRESS}:{PEER_PORT}/"
    say(f"$ python -m skbus.cli.demonstration {url}      (httpx, on our stack)")
    fetch = [sys.executable, "-P", "-m", "skbus.cli.demonstration", url]
    say(_until("we fetch from Linux", server, lambda: _run(fetch, env)))


# ---- the path of one request -----------------------------------------------------------------

Event = dict[str, Any]

_RECEIVE: Final = ("napi_gro_receive", "sk_data_ready")


def story(events: Sequence[Event]) -> list[Event]:
    """One request and its answer. The request is the first packet whose payload went from nic up to
    the socket layer. The answer is the packet with payload that its socket then sent. The story has
    all that happened to both, and between them in the socket. Empty if there is no such pair."""
    by_skb: dict[str, list[Event]] = {}
    for event in events:
        if "skb" in event:
            by_skb.setdefault(event["skb"], []).append(event)
    for request in by_skb.values():
        if not {e["event"] for e in request}.issuperset(_RECEIVE):
            continue
        sk = next((e["sk"] for e in request if "sk" in e), None)
        for answer in by_skb.values():
            first = answer[0]
            if (
                first["event"] == "tcp_transmit_skb"
                and first["time"] >= request[-1]["time"]
                and first.get("sk") == sk
                and int(first.get("len", 0)) > 0
                and answer[-1]["event"] == "dev_hard_start_xmit"
            ):
                return _between(events, request, answer, sk)
    return []


def _between(
    events: Sequence[Event], request: list[Event], answer: list[Event], sk: object
) -> list[Event]:
    start, end = request[0]["time"], answer[0]["time"]
    packets = {request[0]["skb"], answer[0]["skb"]}
    # What the application sent is an skb of its own from the socket layer to tcp.
    packets |= {
        e["skb"]
        for e in events
        if e["event"] == "tcp_sendmsg" and e.get("sk") == sk and start <= e["time"] <= end
    }

    def belongs(event: Event) -> bool:
        if event.get("skb") in packets:
            return True
        if "skb" in event or not start <= event["time"] <= end:
            return False  # another packet: an acknowledgement, say
        return event.get("sk") == sk or str(event["event"]).startswith("sock_")

    return [e for e in events if belongs(e)]


def _path(run: RunDir) -> None:
    from skbus.stack.logread import merged

    told = story(list(merged(run)))
    if not told:
        raise DemoError(f"the logs in {run.log_dir} do not show a request and its answer")
    say("\nThe request's way up and its answer's way down, from the logs of the five processes;")
    say("`skbus logs --skb ID` shows one packet's part of it.\n")
    _print(told)


_INDENT: Final = 27
"""Where a line that is too long goes on below."""


def _print(journey: Sequence[Event]) -> None:
    origin = journey[0]["time"]
    process = skb = flow = None
    for event in journey:
        shown = event["process"] if event["process"] != process else ""
        process = event["process"]
        details = [f"{key}={value}" for key, value in log.details_of(event)]
        if event.get("flow") not in (None, flow):
            flow = event["flow"]
            details.insert(0, flow)
        if event.get("skb") not in (None, skb):
            skb = event["skb"]
            details.append(f"skb={skb}")
        line = f"  {(event['time'] - origin) * 1e6:>8.0f} us  {shown:<9} {event['event']:<24}"
        for part in _wrapped(line, details, shutil.get_terminal_size((118, 24)).columns):
            say(part)


def _wrapped(line: str, words: Sequence[str], columns: int) -> Iterator[str]:
    """A line with words, and further lines of them below, none longer than the terminal is wide
    where a word alone is not. No word is cut: there are numbers in them."""
    longest = max(map(len, words), default=0)
    indent = " " * (_INDENT if _INDENT + longest <= columns else 4)
    for word in words:
        if len(line) + 1 + len(word) > columns and line.strip():
            yield line.rstrip()
            line = indent + word
        else:
            line += f" {word}"
    yield line.rstrip()


# ---- httpx on our stack ----------------------------------------------------------------------


async def fetch(url: str) -> None:
    """Fetch a page with an unmodified httpx, on our stack by trio's socket factory."""
    import httpx

    from skbus import trio as skbus_trio

    uninstall = skbus_trio.install()
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.get(url)
            answer.raise_for_status()
            say(f"HTTP {answer.status_code}, {len(answer.content)} bytes: {answer.text.strip()}")
    finally:
        uninstall()


def main(argv: Sequence[str]) -> int:
    """`python -m skbus.cli.demonstration URL`."""
    import trio

    try:
        trio.run(fetch, argv[0])
    except ModuleNotFoundError as e:
        sys.stderr.write(f"{e.name} is not installed: pip install 'skbus[httpx]'\n")
        return 1
    except Exception as e:  # noqa: BLE001 whatever it is, one line is what the caller prints
        sys.stderr.write(f"{type(e).__name__}: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
