# SPDX-License-Identifier: MIT
"""Unmodified blocking code on our stack: http.client fetches a page.

skbus lab up
skbus lab exec -- python3 -m http.server 8000 &
python examples/blocking_client.py 10.77.0.1 8000
"""

import http.client
import sys

from skbus import socket


def main(host: str, port: int) -> None:
    """Fetch / and print the answer."""
    with socket.install():  # from here on, the standard library's sockets are ours
        connection = http.client.HTTPConnection(host, port, timeout=10)
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
    sys.stdout.write(f"{answer.status} {answer.reason}, {len(body)} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
