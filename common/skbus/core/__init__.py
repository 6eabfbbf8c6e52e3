# SPDX-License-Identifier: MIT
"""core: what a layer's core may import. Nothing here does I/O or reads a clock."""
