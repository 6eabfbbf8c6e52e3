# SPDX-License-Identifier: MIT
"""`skbus up`: all layers on a real interface, supervised in the foreground
(`skbus.stack.supervise`)."""

import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from skbus.cli import options

if TYPE_CHECKING:
    from skbus.bus.rundir import RunDir
    from skbus.stack.config import Config


def register(app: typer.Typer) -> None:
    app.command()(up)


TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Take the interface's address from the kernel, and give it back at the end. "
        "Whoever is logged in through that interface loses the connection.",
    ),
]
Tap = Annotated[
    bool, typer.Option("--tap", help="IFACE is a TAP device, which is made if need be.")
]


def up(
    dev: Annotated[
        str | None, typer.Option(metavar="IFACE", help="The interface, or SKBUS_DEV.")
    ] = None,
    addr: Annotated[
        str | None, typer.Option(metavar="CIDR", help="Our own address: 192.0.2.7/24.")
    ] = None,
    gw: Annotated[str | None, typer.Option(metavar="ADDR", help="Default gateway.")] = None,
    take_over: TakeOver = False,
    tap: Tap = False,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="Our MAC address.")] = None,
    mtu: options.Mtu = None,
    config: options.ConfigFile = None,
    time_scale: options.TimeScale = None,
    log_level: options.LogLevel = None,
    sysctl: options.Sysctls = None,
    module: options.Modules = None,
    affinity: options.Affinity = None,
    tcp_shards: options.TcpShards = None,
    interpreted: options.Interpreted = None,
    fuse: options.Fuse = None,
    loss: options.Loss = None,
    delay: options.Delay = None,
    jitter: options.Jitter = None,
    reorder: options.Reorder = None,
    dup: options.Dup = None,
    corrupt: options.Corrupt = None,
    rate: options.Rate = None,
    seed: options.Seed = None,
) -> None:
    """Run all layers on an interface of this machine, until Ctrl-C. A layer that dies is started
    again. Other commands and programs find the stack by SKBUS_DIR, which is printed."""
    from skbus.stack.config import Config

    impair = {"loss": loss, "delay": delay, "jitter": jitter, "reorder": reorder, "dup": dup,
              "corrupt": corrupt, "rate": rate, "seed": seed}  # fmt: skip
    flags = options.overrides(
        time_scale=time_scale, log_level=log_level, sysctls=sysctl, modules=module,
        affinity=affinity, tcp_shards=tcp_shards, interpreted=interpreted, fuse=fuse,
    )  # fmt: skip
    name = dev or os.environ.get("SKBUS_DEV")
    if name is not None:
        device = options.device(
            name,
            impair,
            addr=addr,
            gateway=gw,
            mac=mac,
            mtu=mtu,
            mode="take-over" if take_over else None,
            backend="tap" if tap else None,
        )
        flags["devices"] = [device]
    effective = Config.load(config, flags)
    check(effective)
    options.say_if_all_are_interpreted(effective)
    _up(effective)


def _up(effective: "Config") -> None:
    """Have the run directory for ourselves, for as long as it runs."""
    from skbus.bus.rundir import RunDir

    run = RunDir(effective.run_dir).create()
    effective.run_dir = str(run.path)
    lock = run.lock()
    try:
        _run(run, effective)
    finally:
        run.remove()
        os.close(lock)


def check(config: "Config") -> None:
    """Refuse what cannot work, before anything is started. ConfigError says what to do."""
    from skbus.stack.config import ConfigError

    if not config.devices:
        raise ConfigError(
            "on which interface? Name it with --dev (or SKBUS_DEV, or [[devices]] in the "
            "configuration); `skbus lab up` needs none"
        )
    for device in config.devices:
        if device.mode == "own" and not device.addr:
            raise ConfigError(
                f"which address shall we have on {device.name}? Say --addr CIDR, or --take-over "
                "for the one that the interface has"
            )
        if device.backend == "tap":
            continue
        try:
            socket.if_nametoindex(device.name)
        except OSError:
            have = ", ".join(name for _, name in socket.if_nameindex())
            raise ConfigError(f"no interface {device.name}; there are: {have}") from None
        try:
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        except PermissionError:
            raise ConfigError(
                f"may not open a packet socket on {device.name}: it takes CAP_NET_RAW. Run as "
                "root, or use `skbus lab up`, which needs no rights"
            ) from None


def _run(run: "RunDir", config: "Config") -> None:
    from skbus.bus import log
    from skbus.bus.clock import StackClock
    from skbus.stack import takeover
    from skbus.stack.layer import open_device, run_supervised
    from skbus.stack.supervise import Supervisor, preload

    logger = log.configure(
        "supervisor",
        config.log.level,
        path=run.log_file("supervisor"),
        stream=sys.stderr,
        format=config.log.format,
        clock=StackClock(config.clock.time_scale),
    )
    sources = preload(config.processes())
    try:
        effective = takeover.resolve(run, config)
        effective.write(run)
        supervisor = Supervisor(
            run,
            effective,
            partial(run_supervised, to_stderr=True, sources=sources),
            open_device=open_device,
            logger=logger,
        )
        try:
            supervisor.start()
            supervisor.wait_ready()
            down = supervisor.wait_links()
            for device in effective.devices:
                note = " (as soon as it has a link)" if device.name in down else ""
                print(f"skbus is up on {device.name}: {', '.join(device.addr)}{note}")
            print(f"export SKBUS_DIR={run.path}", flush=True)
            supervisor.supervise()
        finally:
            supervisor.stop()
    finally:
        takeover.restore(run, config)
