# SPDX-License-Identifier: MIT
"""Load by script: `skbus load`. docs/load.md is the user's page; `runner` shows the parts."""
