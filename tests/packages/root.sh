#!/bin/sh
# A new Debian system in a directory, unless it is there already: what the package depends on, and nothing else.
#
#     tests/packages/root.sh RELEASE DIRECTORY
set -eu
[ -e "$2" ] && exit
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -1) # this machine's own
debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib "$1" "$2" "$mirror" >"$2.log"
