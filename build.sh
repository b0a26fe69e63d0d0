#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The project's commands. Without an argument it prints help.
set -eu
cd -- "$(dirname -- "$0")"

help() {
    cat <<EOF
./build.sh try                      two pods in network namespaces, with addresses by kube-node; no cluster needed
./build.sh test [PYTEST ARGUMENTS]  the tests, on all processors; the last lines name what was left out, and the programs that are missing
./build.sh check                    ruff, mypy, the layers of imports; pyproject.toml and the lock files agree
./build.sh binaries [--version=V]   the programs for /opt/cni/bin, in _output/bin. It compiles with gcc (musl-gcc) if that is installed; --cc=zig: smaller;
                                    --arch=all: also the relay for all machines
./build.sh deb                      a Debian package of these programs, in _output, for Debian 12 and 13, with the agent's systemd unit
./build.sh wheel [DIRECTORY]        the Python package, in _output
./build.sh man                      manual pages of all commands, in _output/man
./build.sh docs                     the documentation as a site, in _output/site
./build.sh pictures                 docs/images of commands, made again from their output
./build.sh dashboard [SECONDS]      docs/images/dashboard.svg, made again from the metrics of agents
./build.sh fuzz [SECONDS]           the relay under libFuzzer
./build.sh lock [--upgrade]         requirements/*.lock, made again from pyproject.toml; needs uv
./build.sh venv [PART…]             only .venv, with requirements/PART.lock

A command installs what it needs into .venv, from PyPI, in the versions of requirements/; as root on Debian also by apt-get. It names all of
that before.
EOF
}

say() { echo "build.sh: $*" >&2; }
die() { say "$@"; exit 1; }

# Debian packages that are missing, installed together.
packages=
may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
apt() { DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q --no-install-recommends "$@" >"$log" 2>&1; }
install_packages() {
    [ "$packages" ] || return 0
    may_install || return 1
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words
    if apt update && { apt --assume-no install $packages || grep -q '^After this' "$log"; }; then
        say "installing Debian's$packages and what they need: $(sed -n '/^The following NEW/,/^[0-9]/ s/^  *//p' "$log" | paste -sd ' ')"
        say "$(grep -E '^(Need to get|After this)' "$log" | paste -sd ' ')"
        if apt --yes install $packages; then rm "$log" && return; fi
    fi
    say "apt-get fails: $(tail -n 5 "$log")"
    rm "$log"
    return 1
}

find_python() {
    # Debian's own first: the launchers in _output/bin name the interpreter that .venv was made with.
    for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then return; fi
    done
    return 1
}

# Whether .venv was made here, and its interpreter still exists: after an upgrade to another Python its pip is not found.
venv_is_sound() {
    [ "$(head -n 1 .venv/stamp 2>/dev/null)" = "$PWD" ] &&
        .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
may_change() {
    [ -w "$1" ] || die "$1 has to change, and it is $(stat -c %U "$1")'s: as root, rm -r $PWD/.venv, and let $(id -un) own $PWD"
}
new_venv() {
    find_python || die "there is no Python 3.11 or later with its venv module (Debian: python3-venv)"
    if [ -e .venv ]; then may_change "$PWD/.venv"; else may_change "$PWD"; fi
    say "making .venv with $("$python" --version), $python"
    "$python" -m venv --clear .venv
    pwd >.venv/stamp
}

# Install requirements/PART.lock for each PART, and kube-node itself.
venv() {
    venv_is_sound || new_venv
    for part in "$@"; do
        lock=requirements/$part.lock
        if cmp -s "$lock" ".venv/$part.lock"; then continue; fi
        may_change "$PWD/.venv"
        say "installing in .venv, $(sed -n '1s/.*to download: //p' "$lock"): $(sed -n 's/^\([A-Za-z0-9._-]*\)==\([^ ]*\).*/\1 \2/p' "$lock" | paste -sd , | sed 's/,/, /g')"
        .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r "$lock"
        cp "$lock" .venv/
    done
    if ! { pwd; cat pyproject.toml; } | cmp -s - .venv/stamp; then
        may_change "$PWD/.venv"
        .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
        { pwd; cat pyproject.toml; } >.venv/stamp
    fi
}

need_python() { venv_is_sound || find_python || packages="$packages python3-venv"; }

bridge_plugin() {
    for dir in $(echo "${CNI_PATH:-}" | tr : ' ') /opt/cni/bin /usr/lib/cni; do
        if [ -x "$dir/bridge" ]; then return; fi
    done
    return 1
}
need_pods() {
    bridge_plugin || packages="$packages containernetworking-plugins"
    command -v ip >/dev/null || packages="$packages iproute2"
    command -v ping >/dev/null || packages="$packages iputils-ping"
}

# The relay is compiled by musl-gcc or gcc, where that makes static programs, else by zig, which is a larger download.
compiler=
gcc_works() { echo 'int main(void) { return 0; }' | gcc -static-pie -x c -o /dev/null - 2>/dev/null; }
need_compiler() {
    if command -v musl-gcc >/dev/null || gcc_works || cmp -s requirements/zig.lock .venv/zig.lock; then return; fi
    if may_install; then packages="$packages gcc musl-tools"; else compiler=zig; fi
}

command=${1:-help}
[ $# = 0 ] || shift
case $command in
help | -h | --help) help && exit ;;
try) need_python && need_pods ;;
venv | check | deb | wheel | man | docs | lock) need_python ;;
test)
    need_python
    case " $* " in *" --quick "*) ;; *) need_compiler ;; esac # the quick tests need no compiler
    ;;
pictures | dashboard) need_python && need_compiler ;;
binaries)
    need_python
    case " $* " in *--arch* | *--cc*zig*) compiler=zig ;; *) need_compiler ;; esac
    ;;
fuzz) ;;
*) help >&2 && die "no command $command" ;;
esac
if ! install_packages; then
    say "going on without Debian's$packages$([ "$(id -u)" = 0 ] || echo ", which this installs as root")"
    case $packages in *gcc*) compiler=zig ;; esac
fi
case $command in
venv) venv run "$@" ;;
binaries)
    venv run $compiler
    .venv/bin/python packaging/binaries.py "$@"
    ;;
deb)
    venv run zig
    .venv/bin/python packaging/binaries.py
    .venv/bin/python packaging/deb.py "$@"
    ;;
wheel)
    venv run
    .venv/bin/python -m pip wheel -qq --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "${1:-_output}" .
    ;;
try)
    venv run
    .venv/bin/kube-node try "$@"
    [ "$(id -u)" = 0 ] || say "as root the pods are network namespaces, and ping each other"
    ;;
man)
    venv run
    .venv/bin/python packaging/manpages.py "$@"
    ;;
docs)
    venv run docs
    rm -rf _output/site-source && mkdir -p _output/site-source
    for name in *.md LICENSE docs deploy examples requirements .github; do ln -s "../../$name" _output/site-source/; done
    NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict
    say "_output/site/index.html; with the search: python3 -m http.server --directory _output/site"
    ;;
pictures)
    venv run test $compiler
    .venv/bin/python packaging/pictures.py "$@"
    ;;
dashboard)
    venv run test $compiler
    .venv/bin/python packaging/dashboard_picture.py "$@"
    ;;
lock)
    venv run
    .venv/bin/python packaging/lock.py "$@"
    ;;
fuzz) relay/fuzz.sh "$@" ;;
test)
    venv run test $compiler
    .venv/bin/pytest "$@"
    ;;
check)
    venv run test check
    .venv/bin/ruff check
    .venv/bin/ruff format --check
    .venv/bin/mypy
    .venv/bin/lint-imports
    .venv/bin/python packaging/lock.py --check
    .venv/bin/python -m pip check
    ;;
esac
