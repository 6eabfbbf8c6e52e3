# SPDX-License-Identifier: MIT
"""Notes: the least that a transport can be, as a plug-in for skbus."""
