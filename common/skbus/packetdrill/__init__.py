# SPDX-License-Identifier: MIT
"""packetdrill's language: scripts that drive a TCP/IP stack with packets and system calls."""

from skbus.packetdrill.parser import parse_file, parse_script
from skbus.packetdrill.script import Script, ScriptError

__all__ = ["Script", "ScriptError", "parse_file", "parse_script"]
