# SPDX-License-Identifier: MIT
"""CUBIC and Reno through the same narrow link: how the congestion window grows and is cut.

    python examples/simulation/sawtooth.py                  the figures, as text
    python examples/simulation/sawtooth.py sawtooth.svg     and a plot

Each flow is alone in a world of its own, and sends for 20 s of virtual time. The link has 10
Mbit/s, 40 ms of round trip and room for 50 frames. docs/simulation.md walks through it.
"""

import sys
from typing import NamedTuple

from skbus.testing import Series, World

SECONDS = 20
CONTROLS = ("reno", "cubic")
TCP_CA_RECOVERY = 3


class Run(NamedTuple):
    """One flow. window: series of the sender's socket; queue: of the port that it sends to."""

    control: str
    window: Series
    queue: Series


def simulate(control: str, seed: int = 1) -> Run:
    """Run one flow under a congestion control."""
    with World(seed) as world:
        sysctl = {"net.ipv4.tcp_congestion_control": control}
        a = world.host("a", "10.0.0.1/24", sysctl=sysctl)
        b = world.host("b", "10.0.0.2/24")
        world.link(a, b, rate="10mbit", delay="20ms", limit=50)

        listener = world.run(world.start(b.listen(5001)))

        async def receive() -> None:
            sock, _ = await listener.accept()
            while await sock.recv(1 << 20):
                pass

        async def send() -> None:
            while True:
                await sock.sendall(bytes(16384))

        world.start(receive())
        sock = world.run(world.start(a.connect("10.0.0.2", 5001)))
        world.start(send())
        columns = ("snd_cwnd", "snd_ssthresh", "ca_state", "bytes_acked")
        window = world.record(sock, *columns, every="20ms")
        queue = world.record(a.ports["eth0"], "queued", "overflowed", every="20ms")
        world.advance(f"{SECONDS}s")
        return Run(control, window, queue)


def describe(run: Run) -> str:
    """Goodput, losses, and each cut of the window."""
    time, state = run.window.time, run.window["ca_state"]
    cwnd, ssthresh = run.window["snd_cwnd"], run.window["snd_ssthresh"]
    cuts = [
        f"    at {time[i]:5.2f} s: from {cwnd[i - 1]:.0f} to {ssthresh[i]:.0f} segments"
        for i in range(1, len(time))
        if state[i] == TCP_CA_RECOVERY != state[i - 1]
    ]
    rate = run.window["bytes_acked"][-1] * 8 / SECONDS / 1e6
    lost = run.queue["overflowed"][-1]
    return "\n".join((f"{run.control}: {rate:.2f} Mbit/s, {lost:.0f} frames lost", *cuts))


def plot(runs: list[Run], path: str) -> None:
    """Plot each flow's window over time, and the queue that it makes."""
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "skbus", "svg.fonttype": "path"}):
        _draw(runs, path)


def _draw(runs: list[Run], path: str) -> None:
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(8, 5), layout="constrained")
    for run, style in zip(runs, ("-", "--"), strict=True):
        above.plot(run.window.time, run.window["snd_cwnd"], style, label=run.control)
        below.plot(run.queue.time, run.queue["queued"], style, label=run.control)
    above.set_ylabel("snd_cwnd, segments")
    below.set_ylabel("frames in the queue")
    below.set_xlabel("virtual time, s")
    above.legend(loc="upper right")
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
    pyplot.close(figure)


if __name__ == "__main__":
    all_runs = [simulate(control) for control in CONTROLS]
    print("\n".join(describe(run) for run in all_runs))
    if len(sys.argv) > 1:
        plot(all_runs, sys.argv[1])
