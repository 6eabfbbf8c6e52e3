# SPDX-License-Identifier: MIT
#
# Part of deploy/Dockerfile: leaves skbus's wheels in /tmp/built, the pure one and, unless $1 is 0,
# a compiled one beside it.
#
# Where deploy/wheels has wheels, no network is used. A compiled wheel that fits this Python is
# taken from there; else one is compiled if this stage's base has a compiler. Without deploy/wheels,
# apt-get installs a compiler that the base lacks.
set -e
venv=/tmp/build-venv
. /tmp/pip.sh

mkdir -p /tmp/built
if [ -n "$offline" ]; then cp /tmp/inputs/skbus-*.whl /tmp/built/; fi
if ! ls /tmp/built/skbus-*-none-any.whl >/dev/null 2>&1; then
    # shellcheck disable=SC2086
    pip wheel --quiet $from --no-deps --wheel-dir /tmp/built /tmp/skbus || { say_why; exit 1; }
fi
if [ "$1" = 0 ]; then
    echo "==> not compiled, as SKBUS_COMPILE=0 says"
    find /tmp/built -name 'skbus-*.whl' ! -name '*-none-any.whl' -delete
    exit
fi
# The one of several that pip prefers here.
pip download --quiet --no-deps --no-index --find-links /tmp/built --dest /tmp/fits skbus
if ! ls /tmp/fits/*-none-any.whl >/dev/null 2>&1; then
    echo "==> compiled already: deploy/wheels has $(ls /tmp/fits)"
    exit
fi

if [ -z "$offline" ] && command -v apt-get >/dev/null; then
    need=
    command -v gcc >/dev/null || need="gcc libc6-dev"
    "$venv/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || need="$need python3-dev"
    if [ -n "$need" ]; then
        echo "==> for this stage alone: apt-get install $need"
        quick="-o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20"
        # shellcheck disable=SC2086
        { apt-get $quick update && apt-get $quick install -y --no-install-recommends $need; } \
            >/tmp/apt.log 2>&1 || grep '^E:' /tmp/apt.log | tail -3
    fi
fi
# Where there is no compiler, this says what is missing, and makes the pure wheel once more.
# shellcheck disable=SC2086
SKBUS_COMPILE=auto pip wheel --verbose $from --no-deps --wheel-dir /tmp/built /tmp/skbus \
    >/tmp/wheel.log 2>&1 || echo "==> not compiled: $(grep -m1 -E 'ERROR|[Ee]rror:' /tmp/wheel.log)"
grep -E '^ *==>' /tmp/wheel.log || true
