# SPDX-License-Identifier: MIT
"""skbus: the Linux network stack taken apart into processes."""
