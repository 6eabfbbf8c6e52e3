# SPDX-License-Identifier: MIT
"""bus: what lies between processes: codec, pipes, the shell that runs a core, control and logs."""
