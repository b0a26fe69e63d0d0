#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Debian package on new Debian systems: it installs, all that it brings works, and after its removal nothing of it is left.
#
#     tests/packages/deb.sh PACKAGE.deb [RELEASE…]     default: bookworm trixie; as root, with debootstrap
#
# KUBE_NODE_DEB_ROOTS names a directory for the releases' root directories, to have them again the next time.
set -eu
package=$(realpath "${1:?the package}")
shift
[ $# -gt 0 ] || set -- bookworm trixie
project=$(cd "$(dirname "$0")/../.." && pwd)
roots=${KUBE_NODE_DEB_ROOTS:-$(mktemp -d)}
export LC_ALL=C.UTF-8

die() { echo "deb.sh: $release: $*" >&2; exit 1; }

# Of what is compiled by others, and dpkg's own notes, nothing is said.
listing() { (cd "$root" && find . -xdev \( -path ./proc -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./tmp -o -name __pycache__ \) -prune -o -print | sort); }

for release in "$@"; do
    root=$roots/$release
    "$project/tests/packages/root.sh" "$release" "$root" python3 # what the package depends on, and nothing else
    listing >"$roots/before"
    mount -t proc proc "$root/proc" # as on every node
    trap 'umount "$root/proc"' EXIT
    cp "$package" "$root/tmp/kube-node.deb"
    chroot "$root" dpkg -i /tmp/kube-node.deb >/dev/null
    python=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

    version=$(chroot "$root" kube-node --version)
    chroot "$root" kubectl-kube_node --help | grep -q "kubectl kube-node" || die "kubectl finds no plugin"
    # What is compiled for this Python is there: the API client cannot be imported without.
    chroot "$root" python3 -IS -c "import sys; sys.path.insert(0, '/usr/lib/kube-node/kube-node.lib'); import msgspec, yaml, httpx2; assert yaml.__with_libyaml__"

    # A pod's address, by the plugin in Debian's CNI directory: without agent, then through one.
    mkdir -p "$root/tmp/kn/run"
    cp "$project/examples/node.yaml" "$root/tmp/kn/"
    export KUBE_NODE_CONF=/tmp/kn/kube-node.conf
    echo '{"allow": {"nodeFile": ["/tmp/kn"]}}' >"$root$KUBE_NODE_CONF"
    conf='{"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": {"type": "kube-node", "nodeFile": "/tmp/kn/node.yaml", "dataDir": "/tmp/kn/networks"}}'
    call() {
        echo "$conf" | chroot "$root" env CNI_COMMAND="$1" CNI_CONTAINERID="$2" CNI_IFNAME=eth0 CNI_NETNS=/tmp/kn/netns CNI_PATH=/usr/lib/cni \
            KUBE_NODE_RUN_DIR=/tmp/kn/run /usr/lib/cni/kube-node
    }
    call ADD alone | grep -q '"address"' || die "no address without agent"
    chroot "$root" kube-node agent --run-dir=/tmp/kn/run --node-file=/tmp/kn/node.yaml --listen=none 2>"$roots/agent.log" &
    agent=$!
    for _ in $(seq 100); do if [ -S "$root/tmp/kn/run/agent.sock" ]; then break; fi; sleep 0.1; done
    call ADD agent | grep -q '"address"' || die "no address from the agent"
    call DEL agent
    call DEL alone
    kill "$agent"
    wait "$agent" || die "the agent ended badly: $(cat "$roots/agent.log")"

    # What install puts elsewhere it takes back itself; the package's own files dpkg knows.
    chroot "$root" kube-node install >/dev/null
    [ -x "$root/opt/cni/bin/kube-node.standalone" ] || die "kube-node install leaves no standalone plugin"
    chroot "$root" kube-node uninstall >/dev/null
    chroot "$root" dpkg -i /tmp/kube-node.deb >/dev/null # the same again, as an upgrade
    mkdir -p "$root/tmp/kn/data" "$root/var/lib/cni/networks" "$root/etc/cni/net.d"
    echo '{"name": "n", "ipam": {"type": "kube-node", "dataDir": "/tmp/kn/data"}}' >"$root/etc/cni/net.d/purged.conf"
    touch "$root/var/lib/cni/networks/.n.note" "$root/tmp/kn/data/.n.note"
    for page in "$root"/usr/share/man/man1/kube-node*.1.gz; do gzip -t "$page"; done
    chroot "$root" bash -n /usr/share/bash-completion/completions/kube-node
    mkdir -p "$root/run/kube-node/attachments" # as an agent leaves it
    touch "$root/run/kube-node/node.json"
    chroot "$root" dpkg --purge kube-node >/dev/null
    [ -z "$(find "$root/var/lib/cni" "$root/tmp/kn/data" -name '.*.note')" ] || die "the boots that reservations are of are left"
    rm "$root/etc/cni/net.d/purged.conf"
    (cd "$root" && rmdir -p --ignore-fail-on-non-empty var/lib/cni/networks etc/cni/net.d)
    rm -rf "$root/tmp/kn" "$root/tmp/kube-node.deb"
    umount "$root/proc"
    trap - EXIT
    listing >"$roots/after"
    diff "$roots/before" "$roots/after" || die "something is left"
    echo "deb.sh: $release, Python $python: $version installed, run, removed"
done
if [ -z "${KUBE_NODE_DEB_ROOTS:-}" ]; then rm -rf "$roots"; fi
