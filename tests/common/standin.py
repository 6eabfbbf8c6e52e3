# SPDX-License-Identifier: MIT
"""A stand-in for a stack: layers that only answer `ping`, under the real supervisor.

Run as a program: `python standin.py RUN [crash|late]`; it prints "ready" once all layers do what
`Supervisor.wait_ready` wants. crash: udp does not start. late: ip misses a device at first, and
notes in RUN/asked what it answers.
"""

import os
import signal
import sys

import msgpack
import zmq

from skbus.bus.rundir import RunDir
from skbus.stack.config import Config
from skbus.stack.supervise import SuperviseError, Supervisor


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
        late = 3 if process == "ip" and "late" in sys.argv else 0
        while True:
            frames = sock.recv_multipart()
            missing = ["eth0"] if late else []
            late = max(0, late - 1)
            answer = {"process": process, "fd": fd, "epoch": 1, "missing": missing}
            if "late" in sys.argv:
                with (run.path / "asked").open("a") as asked:
                    asked.write(f"{process} {' '.join(missing)}\n")
            sock.send_multipart([*frames[:-1], msgpack.packb((True, answer))])


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
