# SPDX-License-Identifier: MIT
"""inet: what the protocols share: headers, socket options, multicast, offloads, /proc/net."""
