# SPDX-License-Identifier: MIT
#
# Part of deploy/Dockerfile: installs $1 ("skbus", or "skbus[load]") into a virtual environment,
# /opt/skbus, from the wheels in /tmp/inputs where there are any, else from an index.
set -e

python3 -m venv /opt/skbus

if ls /tmp/inputs/*.crt >/dev/null 2>&1; then
    system=/etc/ssl/certs/ca-certificates.crt
    if [ ! -e "$system" ]; then
        system=$(/opt/skbus/bin/python -c 'import pip._vendor.certifi as c; print(c.where())')
    fi
    cat "$system" /tmp/inputs/*.crt >/tmp/trusted.crt
    export PIP_CERT=/tmp/trusted.crt
fi
[ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL

if ls /tmp/inputs/*.whl >/dev/null 2>&1; then
    if ! /opt/skbus/bin/pip install --no-cache-dir --no-index --find-links /tmp/inputs "$1"; then
        version=$(/opt/skbus/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "deploy/wheels lacks a wheel for this image's Python $version:" \
            "run make wheels WHEELS_PYTHON=$version, or remove deploy/wheels" >&2
        exit 1
    fi
else
    case $1 in
        skbus) what=/tmp/skbus ;;
        *) what=/tmp/skbus${1#skbus} ;;
    esac
    if ! /opt/skbus/bin/pip install --no-cache-dir "$what"; then
        echo "no network for pip in here? docs/containers.md: make wheels, proxies, certificates" >&2
        exit 1
    fi
fi

# What only installs need not stay: 20 MB. (pbr, of hdrhistogram, does need setuptools.)
case $1 in
    skbus) /opt/skbus/bin/pip uninstall --yes --quiet setuptools ;;
esac
/opt/skbus/bin/pip uninstall --yes --quiet pip
