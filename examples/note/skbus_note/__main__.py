# SPDX-License-Identifier: MIT
"""`python -m skbus_note`: the note process, plugged into the stack of SKBUS_DIR until SIGTERM."""

import sys

from skbus_note.note import note_core, note_net
from skbusd.plugin import run_plug_in

sys.exit(run_plug_in("note", lambda **arguments: note_core(note_net(**arguments))))
