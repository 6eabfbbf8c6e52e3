# SPDX-License-Identifier: MIT
"""A stand-in for a stack: layers that only answer `ping`, under the real supervisor.

Run as a program: `python standin.py RUN [crash]`; it prints "ready" once all layers answer.
"""

import os
import signal
import sys

import msgpack
import zmq

from skbus.config import Config
from skbus.rundir import RunDir
from skbus.supervise import SuperviseError, Supervisor


def answer_pings(run: RunDir, config: Config, process: str, fd: int | None) -> None:
    """A layer that does nothing but answer; fd, if any, must be open."""
    if process == "udp" and "crash" in sys.argv:
        raise RuntimeError("udp is not in the mood")
    if fd is not None:
        os.fstat(fd)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.ROUTER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.bind(run.ctl(process))
        while True:
            frames = sock.recv_multipart()
            sock.send_multipart(
                [*frames[:-1], msgpack.packb((True, {"process": process, "fd": fd, "epoch": 1}))]
            )


def main() -> int:
    """Supervise until a signal."""
    run = RunDir(sys.argv[1]).create()
    config = Config.load(None, {"devices": [{"name": "eth0"}]}, {})
    supervisor = Supervisor(
        run,
        config,
        answer_pings,
        open_device=lambda device: os.open("/dev/null", os.O_RDONLY),
        attached=False,
    )
    try:
        supervisor.start()
        supervisor.wait_ready()
    except SuperviseError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    got = supervisor.supervise()
    supervisor.stop()
    sys.stdout.write(f"ended by {signal.Signals(got).name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
