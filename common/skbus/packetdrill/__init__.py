# SPDX-License-Identifier: MIT
"""packetdrill's language: scripts that drive a TCP/IP stack with packets and system calls.

`parser` reads a script, `interpreter` runs it against a `backend.Backend`: `sim` (the cores, in
virtual time) or `live` (the running processes). `run` is for many scripts, `cli` the command.
"""
