# SPDX-License-Identifier: MIT
"""Sample servers on our stack: `skbus serve KIND` (`cli`); `run` serves in this thread."""
