#!/bin/bash
# SPDX-License-Identifier: MIT
# The real packetdrill against our running processes, a stack of its own for each script.
#
#   HARNESS=/path/to/run.sh PACKETDRILL=/path/to/packetdrill tests/packetdrill/live.sh [options] SCRIPT...
#
# HARNESS takes packetdrill's calls to an adapter and its packets to a veth (see backend.py); the
# options are its own. SCALE=10 runs stack and script ten times slower than life, so that a busy
# machine does not matter. Needs root, for the namespaces.
set -eu
: "${HARNESS:?the script that runs packetdrill with an adapter}"
root=$(cd "$(dirname "$0")/../.." && pwd)
skbus=${SKBUS:-$root/.venv/bin/skbus}
[ -x "$skbus" ] || skbus=$(command -v skbus)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PD_TIME_SCALE=${SCALE:-1}
export SKBUS_DIR=$work/run PYTHON=${PYTHON:-$(dirname "$skbus")/python}
export PYTHONPATH=$root/common:$root/services:$root/tests/packetdrill
export PD_STACK_UP="
setsid $skbus up --dev tun0 --addr 192.168.0.1/16 --gw 192.168.0.2 --mtu 1500 \
	--time-scale $PD_TIME_SCALE ${UP_OPTIONS:-} >$work/log 2>&1 & echo \$! >$work/pid
for i in \$(seq 200); do $skbus barrier >/dev/null 2>&1 && exit 0; sleep .1; done
cat $work/log; exit 1"
export PD_STACK_DOWN="
kill -INT \$(cat $work/pid)
for i in \$(seq 100); do [ -e /proc/\$(cat $work/pid) ] || exit 0; sleep .1; done"
bash "$HARNESS" -b backend:SkbusBackend "$@"
