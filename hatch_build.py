# SPDX-License-Identifier: MIT
"""The optional compiled build: with SKBUS_COMPILE=1 in the environment, mypyc makes machine code
of the packet path (docs/performance.md). With SKBUS_COMPILE=auto it does so where there are a C
compiler and Python's headers; elsewhere it says in one line what is missing.

Called by hatchling for each wheel. Without the variable it does nothing, and the wheel is the
pure one. The compiled modules lie next to their sources, and Python takes them first.
"""

import contextlib
import io
import os
import shutil
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = """
common/skbus/core: checksum dropreason entry layout net netns_ipv4 pool pskb seq skbuff snmp
  syscall timer
common/skbus/app: client
common/skbus/inet: ip_sockglue transport
common/skbus/inet/headers: ethernet ipv4 tcp
common/skbus/bus: barrier clock codec dispatch libzmq loop pipe service zmtp
services/skbusd/nic: core dev dim eth gro gro_flow gso frame netdev rx_buffer source tcp_gro tso
services/skbusd/ip: core ip_input ip_output neighbour netns protocol route
services/skbusd/tcp: core inet_connection_sock inet_hashtables netns sk_lock sock tcp tcp_ack
  tcp_autocork tcp_cong tcp_cubic tcp_data tcp_ecn tcp_input tcp_ipv4 tcp_lost tcp_memory
  tcp_output tcp_pacing tcp_rate tcp_recovery tcp_retransmit tcp_sack tcp_timer tcp_validate
  tcp_window tcp_write_space
services/skbusd/socket: af_inet call core files msghdr netns page_frag recv request router sock
  socket stream tcp_post tcp_recvmsg tcp_sendmsg tcp_sock
"""
"""Folders and modules of the packet path. Left out: modules that mypyc cannot compile (`import *`),
modules that gain nothing (NamedTuples), and `af_packet`. `af_packet` gives the kernel the address
of an object, and compiled code would free the object too early."""

GROUP = "skbus_compiled"
OPTIMIZE = "1"
"""-O2 takes twice as long to build, and its code is not measurably faster."""
REMEDY = "or leave SKBUS_COMPILE out: the package that is not compiled does the same, slower"
MYPY_OPTIONS = (
    "--config-file=",
    "--no-site-packages",  # `make check` looks at the types of other packages
    "--ignore-missing-imports",
    "--explicit-package-bases",
    "--namespace-packages",
    "--no-error-summary",
)


class CompileError(Exception):
    """The compiled package cannot be built here; the text says why, and what to do."""


def modules(root: Path) -> list[Path]:
    """The source files to compile, relative to `root`."""
    found: list[Path] = []
    for line in COMPILED.replace("\n  ", " ").strip().splitlines():
        package, _, names = line.partition(": ")
        found += [Path(package, f"{name}.py") for name in names.split()]
    missing = [str(path) for path in found if not (root / path).is_file()]
    if missing:
        raise CompileError(f"hatch_build.py names what is not there: {' '.join(missing)}")
    return found


def lacking() -> str:
    """What the machine lacks for compiling, and how to get it; "" where it has all."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"a C compiler, and there is no {compiler!r}: apt-get install gcc libc6-dev"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python.h: apt-get install python3-dev"
    return ""


def check_tools() -> None:
    """Raise CompileError where mypyc, a C compiler or Python's headers are missing."""
    try:
        import mypyc.build  # noqa: F401
        import setuptools  # noqa: F401
    except ImportError as e:
        raise CompileError(
            f"SKBUS_COMPILE=1 needs {e.name or 'mypy'}: pip install mypy setuptools; {REMEDY}"
        ) from e
    if what := lacking():
        raise CompileError(f"SKBUS_COMPILE=1 needs {what}; {REMEDY}")


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"==> {text}\n")
    sys.stderr.flush()


def compile_modules(root: Path, work: Path) -> dict[str, str]:
    """Compile the modules: built file -> its place in the wheel. CompileError if that fails.

    work: the directory for C files and objects.
    """
    check_tools()
    paths = modules(root)
    from mypyc.build import mypycify
    from setuptools import Distribution

    work.mkdir(parents=True, exist_ok=True)
    os.environ["MYPYPATH"] = os.pathsep.join(str(root / top) for top in ("common", "services"))
    say(f"mypyc makes C of {len(paths)} modules (some ten seconds)")
    started = time.monotonic()
    before = Path.cwd()
    os.chdir(root)
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            extensions = mypycify(
                [*MYPY_OPTIONS, f"--cache-dir={work / 'mypy'}", *map(str, paths)],
                opt_level=OPTIMIZE,
                debug_level="0",
                multi_file=True,  # one after the other they would take twice as long
                target_dir=str(work / "c"),
                group_name=GROUP,
            )
        jobs = len(os.sched_getaffinity(0))
        say(f"{time.monotonic() - started:.0f} s; the C compiler, {jobs} at a time (some minutes)")
        command = _build_ext(Distribution({"name": "skbus", "ext_modules": extensions}), jobs)
        command.build_lib = str(work / "lib")
        command.build_temp = str(work / "o")
        command.ensure_finalized()
        command.run()
    except SystemExit as e:  # raised by mypyc for a module that it cannot compile
        raise CompileError(f"mypyc refused ({e}):\n{told.getvalue()}") from e
    finally:
        os.chdir(before)
    say(f"{time.monotonic() - started:.0f} s; compiled")
    return {output: str(Path(output).relative_to(work / "lib")) for output in command.get_outputs()}


def _build_ext(distribution: Any, jobs: int) -> Any:
    """setuptools' build_ext, whose compiler takes the files of a library side by side."""
    from setuptools.command.build_ext import build_ext

    class ParallelBuildExt(build_ext):
        def build_extensions(self) -> None:
            compiler = self.compiler
            one_by_one = compiler.compile

            def compile_all(sources: list[str], **options: Any) -> list[str]:
                # The biggest first, so that none is begun when the others are done.
                order = sorted(sources, key=lambda name: -os.path.getsize(name))
                with ThreadPoolExecutor(jobs) as pool:
                    made = pool.map(lambda name: one_by_one([name], **options), order)
                    return [object_file for files in made for object_file in files]

            compiler.compile = compile_all
            super().build_extensions()

    return ParallelBuildExt(distribution)


class CompiledBuildHook(BuildHookInterface[Any]):
    """The build hook that hatchling calls."""

    def dependencies(self) -> list[str]:
        """The packages that pip is to install for the build."""
        return ["mypy>=1.13", "setuptools>=70"] if self._wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together, if SKBUS_COMPILE asks for it."""
        if not self._wanted():
            if self._if_possible():
                say(f"not compiled: that needs {lacking()}")
            return
        if version == "editable":
            if self._if_possible():
                return
            raise CompileError(
                "SKBUS_COMPILE=1 and --editable: what is compiled cannot be edited."
                " Install without --editable, or without SKBUS_COMPILE"
            )
        root = Path(self.root)
        made = compile_modules(root, root / "build" / "compiled")
        build_data["force_include"].update(made)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def _wanted(self) -> bool:
        if self._if_possible():
            return not lacking()
        return self.target_name == "wheel" and os.environ.get("SKBUS_COMPILE", "0") not in ("", "0")

    def _if_possible(self) -> bool:
        return self.target_name == "wheel" and os.environ.get("SKBUS_COMPILE") == "auto"
