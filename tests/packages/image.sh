#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Dockerfile as it is, built by buildah: the image holds what packaging/image.sh makes here of _output/bin, with no right too many, and
# its commands need no network, no writable root and no certain user.
#
#     tests/packages/image.sh ARCHIVE     the image goes there, for `docker load` and tests/e2e/walk.py; after ./build.sh binaries,
#                                         on the Debian of the Dockerfile, as root, with buildah and debootstrap
#
# No registry is asked: debootstrap makes the base image, with this machine's settings of apt and pip in it.
set -eu
archive=$(realpath "${1:?where the image goes}")
project=$(cd "$(dirname "$0")/../.." && pwd)
base=$(sed -n 's/^FROM \(debian:[^ ]*\) .*/\1/p' "$project/Dockerfile")
release=$(echo "$base" | sed 's/.*:\(.*\)-slim/\1/')
image=localhost/kube-node:1 # what walk.py looks for
version=1.2.3-image
scratch=$(mktemp -d)
export LC_ALL=C.UTF-8

buildah() { command buildah --root "$scratch/storage" --runroot "$scratch/run" "$@"; }
die() { echo "image.sh: $*" >&2; exit 1; }
clean() {
    buildah umount --all >/dev/null
    buildah rm --all >/dev/null
    rm -rf "$scratch"
}
trap clean EXIT

targets() { apt-get indextargets --format "$1" 'Identifier: Packages' | grep " $release"; }
container=$(buildah from scratch)
root=$(buildah mount "$container")
mirror=$(targets '$(REPO_URI) $(CODENAME)' | grep -v security | head -1 | cut -d' ' -f1)
[ -n "$mirror" ] || die "this machine is not the Debian $release of the Dockerfile"
debootstrap --variant=minbase "$release" "$root" "$mirror" >"$scratch/log" 2>&1 || die "debootstrap: $(cat "$scratch/log")"
targets 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' >"$root/etc/apt/sources.list"
"$project/tests/packages/settings.sh" "$root"
buildah commit --quiet --rm "$container" "docker.io/library/$base" >/dev/null

buildah bud --quiet --isolation=chroot --pull-never --build-arg "VERSION=$version" --tag "$image" "$project" >"$scratch/log" 2>&1 ||
    die "$(cat "$scratch/log")"
rm -f "$archive"
buildah push --quiet "$image" "docker-archive:$archive:$image"

container=$(buildah from --pull-never "$image")
root=$(buildah mount "$container")
"$project/packaging/image.sh" "$scratch/here" >/dev/null
(cd "$scratch/here" && find . | sort) >"$scratch/files.here"
(cd "$root" && find . | sort) >"$scratch/files.image"
diff "$scratch/files.here" "$scratch/files.image" || die "packaging/image.sh makes < here, > in the image"
strange=$(find "$root" \( -perm /7000 -o -perm /022 ! -type l -o ! -user 0 -o ! -group 0 -o ! -type d ! -type f ! -type l \))
[ -z "$strange" ] || die "setuid, writable by others, not root's, or a device: $strange"
user=$(buildah inspect --format '{{.OCIv1.Config.User}}' "$container")
[ "$user" = 65532:65532 ] || die "it runs as $user"
label=$(buildah inspect --format '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}' "$container")
[ "$label" = "$version" ] || die "its version is $label"

# As a container has it: no network, nothing to write, an empty environment but for PATH.
in_image() {
    unshare --mount --net sh -ec 'mount --bind -o ro "$1" "$1" && root=$1 && shift && cd "$root" &&
        exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot --userspec=4711:4711 --groups= . "$@"' sh "$root" "$@"
}
told=$(in_image kube-node version)
case $told in "kube-node $version, "*) ;; *) die "kube-node version prints $told" ;; esac
in_image kube-node controller --help >/dev/null
in_image kube-node doctor >"$scratch/log" 2>&1 || true # there is no network: a fault, and one that it finds
grep -q 'no network with kube-node' "$scratch/log" || die "kube-node doctor: $(cat "$scratch/log")"
in_image python3 -IS - <<'END'
# Each module is compiled, for this Python, never to be looked at again whether it changed.
import ast, importlib.util, pathlib, sys
for source in [path for top in ("/usr/lib", "/opt") for path in pathlib.Path(top).rglob("*.py")]:
    compiled = pathlib.Path(importlib.util.cache_from_source(source))
    head = compiled.read_bytes()[:8] if compiled.exists() else b""
    if head != importlib.util.MAGIC_NUMBER + b"\1\0\0\0":
        sys.exit(f"image.sh: {source} is compiled at each start: {compiled} begins with {head}")

# What any module of ours imports, wherever in it, is there.
library = pathlib.Path("/opt/kube-node/kube-node.lib")
sys.path.insert(0, str(library))
for source in (library / "kubenode").rglob("*.py"):
    for node in ast.walk(ast.parse(source.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            importlib.import_module(name)
END
size=$(du -sm "$root" | cut -f1)
echo "image.sh: $image, kube-node $version: $size MB, $(find "$root" -type f | wc -l) files, the same as packaging/image.sh makes"
