# SPDX-License-Identifier: MIT
"""Programs that know nothing of us (programs.py): what they find on our stack, and on Linux."""

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.common.client import programs

from skbus.testing.loopback import Loopback

HERE = "127.0.0.1"
NEEDS = {
    "paho": "paho.mqtt", "tornado": "tornado", "websocket": "websocket", "urllib3": "urllib3",
    "requests": "requests", "httpx": "httpx", "aiohttp": "aiohttp", "smtp": "aiosmtpd",
    "paramiko": "paramiko", "gevent": "gevent",
}  # fmt: skip
"""What each takes from elsewhere: the extra "dev" has it all."""
WITHOUT_TLS = {"sendfile", "paramiko", "connection", "descriptor", "fork", "gevent"}
CASES = [
    (name, version)
    for name in programs.PROGRAMS
    for version in ("TLSv1_3", "TLSv1_2")
    if version == "TLSv1_3" or name not in WITHOUT_TLS
]


def run(name: str, version: str, certificate: tuple[Path, Path], *before: str) -> Any:
    """What the program prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *before, programs.__file__, name, HERE,
         *map(str, certificate), version],
        capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "version"), CASES)
def test_a_program_finds_what_it_finds_on_linux(
    loopback: Loopback, certificate: tuple[Path, Path], name: str, version: str
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    assert hasattr(ssl.TLSVersion, version)
    here = run(name, version, certificate, "-m", "skbus.run")
    there = run(name, version, certificate)
    assert here == there
