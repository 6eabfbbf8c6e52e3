# SPDX-License-Identifier: MIT
"""Network namespaces for the benchmark's own ends (kernel to kernel, and the TAP of pmd-pytcp).

A namespace lives as long as its holder, a process that lives as long as its standard input stays
open. So nothing is left behind, however the benchmark ends. Root is not needed where unprivileged
user namespaces are allowed.
"""

import os
import subprocess
from typing import Any

Popen = subprocess.Popen[str]


class NetNs:
    """One network namespace, held by a process. `beside`: share this NetNs's user namespace."""

    def __init__(self, beside: "NetNs | None" = None) -> None:
        if beside is not None:
            enter = beside.user_prefix
        elif os.geteuid() == 0:
            enter = []
        else:
            enter = ["unshare", "--user", "--map-root-user"]
        self._unprivileged = os.geteuid() != 0
        self._holder = subprocess.Popen(
            [*enter, "unshare", "--net", "sh", "-c", "echo up; cat > /dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            self.close()
            raise RuntimeError(
                "cannot make a network namespace: needs root, or unprivileged user namespaces "
                "(sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)"
            )
        self.pid = self._holder.pid
        self.run("ip", "link", "set", "lo", "up")

    @property
    def user_prefix(self) -> list[str]:
        if not self._unprivileged:
            return []
        return ["nsenter", "-t", str(self.pid), "--user", "--preserve-credentials", "--"]

    @property
    def prefix(self) -> list[str]:
        """The words to put before a command that is to run in the namespace."""
        user = ["--user", "--preserve-credentials"] if self._unprivileged else []
        return ["nsenter", "-t", str(self.pid), *user, "--net", "--"]

    def run(self, *command: str) -> str:
        """Run a command in the namespace; its output. RuntimeError with its error text."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def popen(self, *command: str, **options: Any) -> Popen:
        """Start a command in the namespace, out of reach of the terminal's Ctrl-C."""
        return subprocess.Popen(
            [*self.prefix, *command], text=True, start_new_session=True, **options
        )

    def close(self) -> None:
        """End the holder, and with it the namespace if no other process is in it."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(timeout=10)


def quiet(ns: NetNs) -> None:
    """Stop IPv6 chatter in a measured namespace; give it ports enough for connection rounds."""
    for setting in (
        "net.ipv6.conf.all.disable_ipv6=1",
        "net.ipv6.conf.default.disable_ipv6=1",
        "net.ipv4.ip_local_port_range=10000 65000",
        "net.ipv4.tcp_tw_reuse=1",
    ):
        ns.run("sysctl", "-q", "-w", setting)
