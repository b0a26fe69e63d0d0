#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The root directory of the container image: Debian's Python with the libraries that it needs, _output/bin, and nothing else: no shell,
# no package manager. The Dockerfile's second stage is a copy of what this makes; without a container engine it is the image all the same.
#
#     packaging/image.sh DIRECTORY     after ./build.sh binaries, on Debian, after apt-get update; as root: files are to be root's
#
# SOURCE_DATE_EPOCH, where it is set, is the time of all files: the same source and packages make the same layer.
set -eu
root=${1:?the directory to make}
case $root in /*) ;; *) root=$PWD/$root ;; esac
project=$(cd -- "$(dirname -- "$0")/.." && pwd)
binaries=$(cd -- "$project/_output/bin" && pwd)
umask 022
die() { echo "image.sh: $*" >&2; exit 1; }

[ ! -e "$root" ] || die "$root is there already"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$root/usr/lib" "$root/usr/lib64" "$root/usr/bin" "$root/etc" "$root/opt" "$root/var/lib/dpkg/status.d"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"

# Of what apt would install where nothing is installed: Python and the libraries of the modules that stay. _output/bin is built for this
# very Python. glibc looks for libgcc_s when a thread ends; no file names it.
apt-get install --simulate -qq --no-install-recommends -o Dir::State::status=/dev/null python3-minimal libpython3-stdlib |
    sed -n 's/^Inst \([^ ]*\) .*/\1/p' | sort -u |
    grep -E '^(python3|libpython3|libc6$|libgcc-s|gcc-.*-base|libssl|libexpat|libffi|libbz2|liblzma|libuuid|zlib)' >"$scratch/packages"
cd "$scratch"
chmod 755 .
xargs apt-get download -qq -o APT::Sandbox::User=root base-files <packages
while read -r package; do
    dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x --keep-directory-symlink -C "$root"
    # What a scanner looks at, where there is no package manager.
    dpkg-deb --field "$package"_*.deb >"$root/var/lib/dpkg/status.d/$package"
done <packages
dpkg-deb --fsys-tarfile base-files_*.deb | tar -x -C "$root" ./etc/debian_version ./etc/os-release ./usr/lib/os-release ./usr/share/common-licenses
cd /

python=$(readlink "$root/usr/bin/python3")
library=$root/usr/lib/$python
find "$root/usr/bin" ! -type d ! -name python3 ! -name "$python" -delete
for name in ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo; do rm -rf "${library:?}/$name"; done
for name in '_codecs_*' _crypt '_ctypes_test*' '_curses*' _dbm _gdbm nis ossaudiodev readline _sqlite3 '_test*' '_xxtest*' 'xxlimited*'; do
    find "$library/lib-dynload" -name "$name.cpython-*" -delete
done
rm -rf "$root/usr/sbin" "$root/usr/share/man" "$root/usr/share/lintian" "$root/usr/share/applications" "$root/usr/share/pixmaps" \
    "$root/usr/share/python3" "$root/usr/share/bug" "$root/usr/share/binfmts" "$root/usr/lib/binfmt.d" "$root/usr/lib/valgrind" \
    "$root/usr/lib/systemd" "$root/etc/init.d" "$root"/usr/lib/*/gconv "$root"/usr/lib/*/engines-3
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root" -name sitecustomize.py -exec rm -f {} +
# The image is read-only: what is not compiled now would be compiled at each start.
"/usr/bin/$python" -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / "$library"

cat >"$root/etc/passwd" <<END
root:x:0:0:root:/:/nonexistent
nonroot:x:65532:65532:nonroot:/:/nonexistent
END
cat >"$root/etc/group" <<END
root:x:0:
nonroot:x:65532:
END
cp -R "$binaries" "$root/opt/kube-node"
ln -s ../../opt/kube-node/kube-node.standalone "$root/usr/bin/kube-node" # kubectl exec POD -- kube-node status
mkdir "$root/usr/share/doc/kube-node"
cp "$project/LICENSE" "$root/usr/share/doc/kube-node/copyright"

linker=$(cd "$root" && ls lib*/ld*.so.*)
find "$root/usr/bin" "$library" "$root/opt" -type f \( -name '*.so' -o -path "*/bin/$python" \) | sed "s|^$root||" | while read -r file; do
    if chroot "$root" "/$linker" --list "$file" | grep 'not found'; then die "$file lacks a library"; fi
done
if find "$root" \( -name sh -o -name bash -o -name dash -o -name busybox -o -name 'apt*' -o -name dpkg \) -path '*/bin/*' | grep .; then
    die "that does not belong into the image"
fi
[ -z "${SOURCE_DATE_EPOCH:-}" ] || find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
echo "image.sh: $root holds kube-node $(chroot "$root" /usr/bin/kube-node --version), $(du -sm "$root" | cut -f1) MB"
