# SPDX-License-Identifier: MIT
"""docker-compose.yml without an engine: both generations of docker-compose take it.

`tests/compose` runs it under the one that is installed, which may be version 1. Version 2 takes
what the Compose Specification has; its schema comes with check-jsonschema.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"


def check(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            Path(sys.executable).with_name("check-jsonschema"),
            "--builtin-schema",
            "vendor.compose-spec",
            path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_file_is_one_of_the_compose_specification(tmp_path: Path) -> None:
    done = check(FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(FILE.read_text().replace("network_mode: none", "network_mode: [none]", 1))
    assert check(wrong).returncode != 0


def test_one_service_builds_the_image_that_the_others_run() -> None:
    """Each has either the build of its image or waits for who has it."""
    text = FILE.read_text()
    assert len(re.findall(r"(?m)^    build:$", text)) == 2  # nic: skbus; load: skbus-load
    for layer in ("ip", "tcp", "udp", "socket"):
        assert re.search(rf"(?m)^  {layer}:\n(    .*\n)*?    depends_on: \[nic\]\n", text), layer
