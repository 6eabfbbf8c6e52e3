# SPDX-License-Identifier: MIT
#
# Part of deploy/Dockerfile, sourced by wheel.sh and install.sh: a virtual environment in $venv, and
# `pip` there, which trusts what it shall. Where /tmp/inputs has wheels (deploy/wheels), `offline`
# is set, and $from has pip look there alone.
python3 -m venv "$venv"
pip() { "$venv/bin/pip" --disable-pip-version-check "$@"; }

if ls /tmp/inputs/*.crt >/dev/null 2>&1; then
    system=/etc/ssl/certs/ca-certificates.crt
    if [ ! -e "$system" ]; then
        system=$("$venv/bin/python" -c 'import pip._vendor.certifi as c; print(c.where())')
    fi
    cat "$system" /tmp/inputs/*.crt >/tmp/trusted.crt
    export PIP_CERT=/tmp/trusted.crt
fi
[ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL

offline= from=
if ls /tmp/inputs/*.whl >/dev/null 2>&1; then
    offline=1 from="--no-index --find-links /tmp/inputs"
fi

say_why() {  # what pip may have lacked
    if [ -n "$offline" ]; then
        version=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "deploy/wheels lacks a wheel for this image's Python $version:" \
            "run make wheels WHEELS_PYTHON=$version, or remove deploy/wheels" >&2
    else
        echo "no network for pip in here? docs/containers.md: make wheels, proxies, certificates" >&2
    fi
}
