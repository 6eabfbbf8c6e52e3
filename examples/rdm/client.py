# SPDX-License-Identifier: MIT
"""An application that uses RDM: sends each line of its input as a message, prints the answers.

client.py ADDRESS [PORT]
"""

import sys

from skbus import socket

SOCK_RDM, IPPROTO_RDM = 4, 253


def main() -> None:
    """Send and receive until the input ends."""
    address = (sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7)
    with socket.socket(socket.AF_INET, SOCK_RDM, IPPROTO_RDM) as sock:
        sock.settimeout(30)
        for line in sys.stdin:
            sock.sendto(line.rstrip("\n").encode(), address)  # returns when the peer has it
            answer, peer = sock.recvfrom(65536)
            sys.stdout.write(f"{peer[0]}:{peer[1]} {answer.decode()}\n")


if __name__ == "__main__":
    main()
