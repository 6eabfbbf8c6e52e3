# SPDX-License-Identifier: MIT
"""stack: starting and watching a stack: configuration, supervision, labs, health."""
