# SPDX-License-Identifier: MIT
#
# Part of deploy/Dockerfile: installs $1 ("skbus", or "skbus[load]") into a virtual environment,
# /opt/skbus: skbus from /tmp/built, compiled if it can be; all else from the wheels in /tmp/inputs
# where there are any, else from an index.
set -e
venv=/opt/skbus
. /tmp/pip.sh

extras=${1#skbus}
pip download --quiet --no-deps --no-index --find-links /tmp/built --dest /tmp/fits skbus
# shellcheck disable=SC2086
pip install --no-cache-dir $from "$(ls /tmp/fits/skbus-*.whl)$extras" || { say_why; exit 1; }
if ! "$venv/bin/python" -c 'import skbus.core.net'; then
    echo "==> the compiled wheel does not run in this image (above): the pure one instead"
    pip install --no-cache-dir --no-index --no-deps --force-reinstall /tmp/built/skbus-*-none-any.whl
fi
"$venv/bin/skbus" --version

# What only installs need not stay: 20 MB. (pbr, of hdrhistogram, does need setuptools.)
case $1 in
    skbus) pip uninstall --yes --quiet setuptools ;;
esac
pip uninstall --yes --quiet pip
