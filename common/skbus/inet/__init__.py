# SPDX-License-Identifier: MIT
"""inet: the protocols' common parts: headers, socket options, multicast, offloads, /proc/net."""
