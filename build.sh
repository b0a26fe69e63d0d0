#!/bin/sh
# The handful of commands that this project needs. Alone it says which.
set -eu
cd -- "$(dirname -- "$0")"

help() {
    cat <<EOF
./build.sh binaries [--version=V]   what goes into /opt/cni/bin, made in _output/bin; --arch=all: also the relay for all machines
./build.sh deb                      a Debian package of them in _output, for Debian 12 and 13, with the agent's systemd unit
./build.sh try                      two pods in network namespaces, addresses by kube-node; no cluster needed
./build.sh test [PYTEST ARGUMENTS]  the tests; those that need programs which are not here skip and say so
./build.sh check                    ruff, mypy and the rules of who imports whom
./build.sh man                      manual pages of all commands, in _output/man
./build.sh pictures                 docs/images, made anew from what the commands print
./build.sh dashboard [SECONDS]      docs/images/dashboard.svg, made anew from what agents tell Prometheus
./build.sh fuzz [SECONDS]           the relay, by libFuzzer
./build.sh venv                     only .venv, which all of the above make when needed
EOF
}

say() { echo "build.sh: $*" >&2; }
die() { say "$@"; exit 1; }

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install_package() {
    say "installing Debian's $1"
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
}

find_python() {
    # Debian's own first: the launchers in _output/bin name the interpreter that .venv was made with.
    for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return
        fi
    done
    die "no Python 3.11 or later: neither /usr/bin/python3 nor python3 in PATH"
}

venv() {
    if ! .venv/bin/python -c '' 2>/dev/null; then
        find_python
        if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            if [ "$python" = /usr/bin/python3 ] && may_install; then
                install_package python3-venv
            else
                die "$python has no venv module (Debian: apt-get install python3-venv)"
            fi
        fi
        say "making .venv with $("$python" --version), $python"
        "$python" -m venv --clear .venv
    fi
    # The directory is part of the stamp: an editable install points to where it was made.
    if ! { pwd; cat pyproject.toml; } | cmp -s - .venv/stamp; then
        say "installing kube-node and its tools in .venv"
        .venv/bin/python -m pip install -qq --disable-pip-version-check "pip>=25.1" # knows --group
        .venv/bin/python -m pip install -qq -e . --group dev
        { pwd; cat pyproject.toml; } >.venv/stamp
    fi
}

bridge_plugin() {
    echo "${CNI_PATH:-}:/opt/cni/bin:/usr/lib/cni" | tr : '\n' | while read -r dir; do
        if [ -n "$dir" ] && [ -x "$dir/bridge" ]; then echo "$dir/bridge"; fi
    done | grep -m1 .
}

try() {
    # What pods are made of: program, Debian's package of it. Without them it shows addresses only, and says why.
    for need in bridge:containernetworking-plugins ip:iproute2 ping:iputils-ping; do
        program=${need%%:*}
        case $program in bridge) bridge_plugin >/dev/null ;; *) command -v "$program" >/dev/null ;; esac && continue
        if may_install && install_package "${need#*:}"; then continue; fi
        say "there is no $program here (Debian: ${need#*:})"
    done
    .venv/bin/kube-node try "$@"
}

command=${1:-help}
[ $# = 0 ] || shift
case $command in
help | -h | --help) help && exit ;;
venv | binaries | deb | try | test | check | man | pictures | dashboard) venv ;;
fuzz) ;;
*) help >&2 && die "no command $command" ;;
esac
case $command in
binaries) .venv/bin/python packaging/binaries.py "$@" ;;
deb)
    .venv/bin/python packaging/binaries.py
    .venv/bin/python packaging/deb.py "$@"
    ;;
try) try "$@" ;;
man) .venv/bin/python packaging/manpages.py "$@" ;;
pictures) .venv/bin/python packaging/pictures.py "$@" ;;
dashboard) .venv/bin/python packaging/dashboard_picture.py "$@" ;;
fuzz) relay/fuzz.sh "$@" ;;
test) .venv/bin/pytest "$@" ;;
check)
    .venv/bin/ruff check
    .venv/bin/ruff format --check
    .venv/bin/mypy
    .venv/bin/lint-imports
    ;;
esac
