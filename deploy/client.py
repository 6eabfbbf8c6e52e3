# SPDX-License-Identifier: MIT
"""The client of docker-compose.yml: fetches a page through the Linux kernel's own stack.

client.py URL             fetch for ever, a line each
client.py --once URL      fetch once; the exit status says whether it worked
"""

import sys
import time
import urllib.request


def fetch(url: str) -> bool:
    """Fetch and report; returns whether it worked."""
    started = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            size = len(answer.read())
            line = f"{url}: {answer.status}, {size} bytes"
    except OSError as e:
        print(f"{url}: {e}", flush=True)
        return False
    print(f"{line}, {(time.monotonic() - started) * 1e3:.1f} ms", flush=True)
    return True


def main(argv: list[str]) -> int:
    """The command."""
    if argv[0] == "--once":
        return 0 if fetch(argv[1]) else 1
    while True:
        fetch(argv[0])
        time.sleep(2)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
