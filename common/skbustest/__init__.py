# SPDX-License-Identifier: MIT
"""Whole stacks of several hosts in one process and in virtual time, and the tools of tests.

This package imports every layer's core, so it is part of neither the library `skbus` nor the
daemons `skbusd`. Its public face is `skbus.testing`.
"""
