# SPDX-License-Identifier: MIT
"""RDM: reliably delivered messages, a transport for skbus that comes as a plug-in."""
