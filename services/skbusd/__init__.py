# SPDX-License-Identifier: MIT
"""skbusd: the daemons, one package per layer."""
