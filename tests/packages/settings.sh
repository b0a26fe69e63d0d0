#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Give a Debian root directory this machine's settings of apt and pip: what is asked for in there comes from where it comes from here.
#
#     tests/packages/settings.sh DIRECTORY
set -eu
root=${1:?the root directory}
pip=$(dirname "$0")/../../.venv/bin/pip

setting() { "$pip" config list | sed -n "s/^[a-z:]*\.$1='\(.*\)'$/\1/p" | tail -1; }
apt-config dump | grep -E '^Acquire::(https?|Check-)' >"$root/etc/apt/apt.conf.d/machine" || true
{
    echo '[global]'
    if [ -n "$(setting index-url)" ]; then echo "index-url = $(setting index-url)"; fi
    if [ -n "$(setting cert)" ]; then
        cp -L "$(setting cert)" "$root/etc/pip.crt"
        echo 'cert = /etc/pip.crt'
    fi
} >"$root/etc/pip.conf"
