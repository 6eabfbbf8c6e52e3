# SPDX-License-Identifier: MIT
"""`python -m skbusd LAYER`."""

import sys

from skbusd.cli import main

sys.exit(main())
