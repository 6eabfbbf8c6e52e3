# SPDX-License-Identifier: MIT
"""`skbusd LAYER`: the command that runs one layer of the stack in this process.

A container or another machine runs a layer by this command. On one machine `skbus up` and
`skbus lab up` fork all of them. Both then do the same (`skbus.stack.layer`).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from skbus.bus import log
from skbus.bus.rundir import RunDir, RunDirError
from skbus.stack import interpreted, takeover
from skbus.stack.config import LAYERS, Config, ConfigError
from skbus.stack.layer import run_process, start_log

CONFIG_TIME: Final = 30.0
"""Seconds that a layer waits for nic to write RUN/config.json."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of skbusd; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        return _main(options, sys.argv[1:] if argv is None else argv)
    except (ConfigError, RunDirError, takeover.TakeoverError, OSError) as e:
        sys.stderr.write(f"skbusd {options.layer}: {e}\n")
        return 1


class _Version(argparse.Action):
    """--version: the version is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from skbus.bus.version import version

        sys.stdout.write(f"skbusd {version()}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="skbusd",
        description="Run one layer of the skbus network stack. The layers of one stack meet in "
        "a run directory (SKBUS_DIR); `skbus up` and `skbus lab up` run all of them.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "layer", choices=("nic", *LAYERS), metavar="LAYER", help="nic, ip, tcp, udp or socket"
    )
    parser.add_argument("--dev", help="nic: the interface to drive (or SKBUS_DEV)")
    parser.add_argument(
        "--shard", type=int, default=0, help="tcp: which of the configuration's tcp_shards to run"
    )
    parser.add_argument("--fd", type=int, help="nic: the device's open descriptor")
    parser.add_argument(
        "--config",
        type=Path,
        help="configuration in TOML (or SKBUS_CONFIG); without it, what lies in the run directory",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="'NAME [PARAMETER=VALUE]...'",
        help="socket: load code into the process: a Python file, an entry point of skbus.modules "
        "or a dotted module",
    )
    parser.add_argument("--log-level", choices=tuple(log.LEVELS))
    parser.add_argument("--log-format", choices=("auto", "json", "console"))
    return parser


def _main(options: argparse.Namespace, argv: Sequence[str]) -> int:
    os.umask(0o077)  # the run directory's files are for nobody else
    run = RunDir().create()
    if options.layer == "nic":
        config, process = _nic_config(run, options)
    else:
        config = _wait_for_config(run, options)
        processes = config.layer_processes(options.layer)
        if not 0 <= options.shard < len(processes):
            raise ConfigError(f"--shard {options.shard}: there are {len(processes)}")
        process = processes[options.shard]
    if interpreted.wanted(config, process):
        interpreted.become(__name__, *argv)
    if options.module:
        config.modules = [*config.modules, *options.module]
    config.log.level = options.log_level or config.log.level
    config.log.format = options.log_format or config.log.format
    start_log(run, config, process, to_file=True, to_stderr=True)
    run_process(run, config, process, options.fd)
    return 0


def _nic_config(run: RunDir, options: argparse.Namespace) -> tuple[Config, str]:
    """nic is the lowest layer, and the one that sees the interface. It writes RUN/config.json for
    the other layers, unless `skbus up`, which knows better, has written it."""
    flags = {"devices": [{"name": options.dev}]} if options.dev else {}
    config = Config.load(options.config, flags)
    if not config.devices and run.config_file.exists():
        config = Config.read(run)
    dev = options.dev or os.environ.get("SKBUS_DEV")
    if dev is None and len(config.devices) == 1:
        dev = config.devices[0].name
    if dev is None:
        names = ", ".join(d.name for d in config.devices)
        has = names or "no device"
        raise ConfigError(f"which interface? Name it with --dev; the configuration has {has}")
    config.device(dev)
    if options.fd is None:
        config = takeover.resolve(run, config)
        config.run_dir = str(run.path)
        config.write(run)
    return config, config.device(dev).process


def _wait_for_config(run: RunDir, options: argparse.Namespace) -> Config:
    """The other layers may be started before nic, or with a configuration of their own."""
    if options.config is not None:
        return Config.load(options.config)
    deadline = monotonic() + CONFIG_TIME
    while not run.config_file.exists() and monotonic() < deadline:
        sleep(0.05)
    return Config.read(run)
