#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The README's commands on Debian systems that have nothing but their base, as root and as an ordinary user: what is missing is named and
# installed, or named and done without. Each release has another Python.
#
#     tests/packages/fresh.sh [--whole] [RELEASE…]     default: bookworm trixie forky; as root, with debootstrap
#
# --whole: all tests as both users, and not the quick ones as the ordinary user.
set -eu
whole=
if [ "${1:-}" = --whole ]; then whole=1 && shift; fi
[ $# -gt 0 ] || set -- bookworm trixie forky
project=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export LC_ALL=C.UTF-8

die() { printf 'fresh.sh: %s: %s; it printed:\n' "$release" "$*" >&2 && cat "$scratch/log" >&2 && exit 1; }
prints() { grep -q -e "$1" "$scratch/log" || die "$what does not print “$1”"; }
silent() { ! grep -e "$1" "$scratch/log" || die "$what prints “$1”"; }

# as USER CLONE COMMAND: alone with its processes and mounts.
as() {
    what="$3 as $1, in $2's clone"
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --pid --fork --kill-child sh -ec '
        root=$1
        mount -t proc proc "$root/proc" && mount -t sysfs sysfs "$root/sys" && mount --rbind /dev "$root/dev" && mount -t tmpfs none "$root/run"
        exec chroot --userspec="$2" "$root" env -i HOME="/srv/$2" TERM=dumb LC_ALL=C.UTF-8 \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -ec "cd /srv/$3/kube-node && $4"
    ' sh "$root" "$@" >"$scratch/log" 2>&1
}
fine() { as "$@" || die "$what fails"; }
fails() { ! as "$@" || die "$what does not fail"; }
# tests USER [OPTION]: and show what was left out, how many passed, and how long it took.
tests() {
    began=$(date +%s)
    fine "$1" "$1" "./build.sh test ${2:-}"
    echo "fresh.sh: $release, $(chroot "$root" python3 --version), ./build.sh test ${2:-} as $1, $(($(date +%s) - began)) s:"
    sed -n '/ were left out, /,$p' "$scratch/log"
}
clone() {
    mkdir -p "$root/srv/$1/kube-node"
    (cd "$project" && git ls-files -z | xargs -0 cp --parents -t "$root/srv/$1/kube-node")
    chroot "$root" chown -R "$1:" "/srv/$1"
}

for release in "$@"; do
    root=$scratch/$release
    "$project/tests/packages/root.sh" "$release" "$root"
    "$project/tests/packages/settings.sh" "$root"
    chroot "$root" useradd user
    clone root
    clone user

    fails user user './build.sh try'
    prints "without Debian's python3-venv containernetworking-plugins iproute2 iputils-ping, which this installs as root"
    fine root root './build.sh try'
    prints "^build.sh: installing Debian's python3-venv containernetworking-plugins"
    prints '^build.sh: installing in .venv, '
    prints 'Pods, bridge and reservations are gone again'
    silent 'Only addresses'
    fine root root './build.sh try'
    silent '^build.sh'

    fine user user './build.sh try'
    prints 'Only addresses, no pods: network namespaces need root'
    prints 'as root the pods are network namespaces'
    ln -sf /nowhere/python3 "$root/srv/user/kube-node/.venv/bin/python3" # as an upgrade of pyenv's leaves it
    tests user "$([ "$whole" ] || echo --quick)"
    prints '^build.sh: making .venv with'
    if [ "$whole" ]; then tests root; fi

    fine user root './build.sh try'
    fails user root './build.sh binaries'
    prints "/srv/root/kube-node/.venv has to change, and it is root's: as root, rm -r"
    rm -rf "$root"
done
