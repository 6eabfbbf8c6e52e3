# SPDX-License-Identifier: MIT
"""`python -m skbus_rdm`: the rdm process, plugged into the stack of SKBUS_DIR until SIGTERM."""

import sys

from skbus_rdm.core import RdmCore
from skbus_rdm.netns import RdmNet
from skbusd.plugin import run_plug_in

sys.exit(run_plug_in("rdm", lambda **arguments: RdmCore(RdmNet(**arguments))))
