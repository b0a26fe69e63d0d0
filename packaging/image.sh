#!/bin/sh
# The root directory of the container image: Debian's Python with the libraries that it needs, _output/bin, and nothing else: no shell,
# no package manager. The Dockerfile's second stage is a copy of what this makes; without a container engine it is the image all the same.
#
#     packaging/image.sh DIRECTORY     after ./build.sh binaries, on Debian, after apt-get update; as root: files are to be root's
set -eu
root=${1:?the directory to make}
case $root in /*) ;; *) root=$PWD/$root ;; esac
binaries=$(cd -- "$(dirname -- "$0")/../_output/bin" && pwd)
umask 022
[ ! -e "$root" ] || { echo "image.sh: $root is there already" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$root/usr/lib" "$root/usr/lib64" "$root/etc" "$root/opt"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"

# What apt would install where nothing is installed; the libraries of it and Python itself. _output/bin is built for this very Python.
apt-get install --simulate -qq --no-install-recommends -o Dir::State::status=/dev/null python3-minimal libpython3-stdlib |
    sed -n 's/^Inst \([^ ]*\) .*/\1/p' | grep -E '^(lib|python3|zlib)' | sort -u >"$scratch/packages"
cd "$scratch"
chmod 755 .
xargs apt-get download -qq -o APT::Sandbox::User=root <packages
for package in ./*.deb; do dpkg-deb -x "$package" "$root"; done
cd /

python=$(readlink "$root/usr/bin/python3")
library=$root/usr/lib/$python
find "$root/usr/bin" ! -type d ! -name python3 ! -name "$python" -delete
for name in ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo; do rm -rf "${library:?}/$name"; done
rm -rf "$root/usr/sbin" "$root/usr/share/man" "$root/usr/share/lintian" "$root/usr/share/applications" "$root/usr/share/pixmaps" \
    "$root/usr/share/python3" "$root/usr/share/bug" "$root/usr/lib/valgrind" "$root/usr/lib/systemd" "$root/etc/init.d"
find "$root/usr/share/doc" ! -type d ! -name copyright -delete
find "$root" -name sitecustomize.py -exec rm -f {} +
# The image is read-only: what is not compiled now would be compiled at each start.
"/usr/bin/$python" -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / "$library"

echo root:x:0:0:root:/:/nonexistent >"$root/etc/passwd"
echo root:x:0: >"$root/etc/group"
cp -R "$binaries" "$root/opt/kube-node"
ln -s ../../opt/kube-node/kube-node.standalone "$root/usr/bin/kube-node" # kubectl exec POD -- kube-node status
if find "$root" \( -name sh -o -name bash -o -name dash -o -name busybox -o -name 'apt*' -o -name dpkg \) -path '*/bin/*' | grep .; then
    echo "image.sh: that does not belong into the image" >&2
    exit 1
fi
echo "image.sh: $root holds kube-node $(chroot "$root" /opt/kube-node/kube-node.standalone --version), $(du -sm "$root" | cut -f1) MB"
