# SPDX-License-Identifier: MIT
"""Whole stacks of several hosts in one process and in virtual time, and what tests are made of.

This package imports every layer's core, so it stands beside the library `skbus` and the daemons
`skbusd` and not inside either. Its public face is `skbus.testing`.
"""
