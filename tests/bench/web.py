# SPDX-License-Identifier: MIT
"""HTTP rounds: wrk on the Linux side, and a web server on the stack that is measured.

On our stack that is `skbus serve http`, on Linux nginx with the same page, in one process as ours.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from skbus.serve.web import PAGE

CONNECTIONS: Final = 50
PORT: Final = 8080
UNITS: Final = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}

NGINX: Final = """
daemon off;
master_process off;
user root;
pid {dir}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type text/html;
    keepalive_requests 1000000000;
    open_file_cache max=10;
    {temporary}
    server {{ listen {port}; root {dir}; }}
}}
"""


class WebError(RuntimeError):
    """A round failed; the text says why."""


def missing() -> str:
    """Why no HTTP can be measured here; "" if it can."""
    return "" if shutil.which("wrk") else "wrk is not installed (apt-get install wrk)"


def missing_nginx() -> str:
    """Why Linux has no web server; "" if it has one."""
    return "" if _nginx() else "nginx is not installed (apt-get install nginx-light)"


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")


def nginx(stack: ExitStack) -> list[str]:
    """The command of an nginx with our page; its files go when the stack is closed."""
    program = _nginx()
    if program is None:
        raise WebError(missing_nginx())
    where = Path(stack.enter_context(TemporaryDirectory(prefix="skbus-bench-")))
    where.chmod(0o755)
    (where / "index.html").write_bytes(PAGE)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {where}/{kind};" for kind in kinds)
    (where / "conf").write_text(NGINX.format(dir=where, port=PORT, temporary=temporary))
    return [program, "-p", str(where), "-e", "stderr", "-c", str(where / "conf")]


def start(
    stack: ExitStack, command: list[str], env: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """A web server, until the stack is closed."""
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **env},
        start_new_session=True,
    )

    def end() -> None:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        assert server.stderr is not None
        server.stderr.close()

    stack.callback(end)
    return server


def wait(client: list[str], address: str, server: "subprocess.Popen[bytes]") -> None:
    """Return when the server can be connected to; WebError after 10 s, or where it ends."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    give_up = time.monotonic() + 10
    while True:
        if server.poll() is not None:
            assert server.stderr is not None
            said = server.stderr.read().decode(errors="replace").strip()[-300:]
            raise WebError(f"the web server ended with {server.returncode}: {said}")
        command = [*client, sys.executable, "-c", code, address, str(PORT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode:
            return
        if time.monotonic() > give_up:
            raise WebError(f"no web server at {address} port {PORT} within 10 s")
        time.sleep(0.05)


def wrk(client: list[str], address: str, seconds: float) -> dict[str, Any]:
    """Ask for the page again and again; requests, seconds and latencies. WebError where one
    request was not answered well, because such an answer may cost less."""
    whole = max(1, round(seconds))  # wrk takes no fraction
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{whole}s", "--timeout", "60s"]
    done = subprocess.run(
        [*client, *command, "--latency", f"http://{address}:{PORT}/"],
        capture_output=True,
        text=True,
        check=False,
        timeout=whole + 90,
    )
    if done.returncode:
        raise WebError(f"wrk: {(done.stderr or done.stdout).strip()[-300:]}")
    return parse(done.stdout)


def parse(said: str) -> dict[str, Any]:
    """The figures of wrk's text."""
    for wrong in ("Socket errors", "Non-2xx"):
        for line in said.splitlines():
            if wrong in line:
                raise WebError(f"wrk: {line.strip()}")
    count = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", said)
    if count is None:
        raise WebError(f"wrk says no number of requests: {said.strip()[-300:]}")
    found: dict[str, Any] = {
        "bytes": int(count[1]),
        "seconds": float(count[2]) * UNITS[count[3]] / 1e6,
    }
    for percent in ("50", "99"):
        if latency := re.search(rf"^ +{percent}% +([\d.]+)(us|ms|s|m)$", said, re.MULTILINE):
            found[f"p{percent}_us"] = float(latency[1]) * UNITS[latency[2]]
    return found
