# SPDX-License-Identifier: MIT
"""app: what runs in an application's process; its faces are `skbus.socket` and `skbus.trio`."""
