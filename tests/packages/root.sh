#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A new Debian system in a directory, unless it is there already: its smallest, and these packages.
#
#     tests/packages/root.sh RELEASE DIRECTORY [PACKAGE,PACKAGE…]
set -eu
[ -e "$2" ] && exit
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -1) # this machine's own
scripts=/usr/share/debootstrap/scripts
script=$scripts/$1
[ -e "$script" ] || script=$scripts/sid # a release that this debootstrap is too old to know
debootstrap --variant=minbase ${3:+--include="$3"} "$1" "$2" "$mirror" "$script" >"$2.log" || { cat "$2.log" >&2 && exit 1; }
