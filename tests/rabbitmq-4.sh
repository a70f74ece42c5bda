#!/bin/sh
# Prints the directory of a root file system with RabbitMQ 4, of a newer Debian than this one, having made it if it is not there:
# `chroot` into it, as root. Only packages' files are unpacked; none is installed.
set -eu
suite=trixie
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# Another suite, or another way to make it, is another directory.
root=$cache/rabbitmq-4-$(cksum <"$0" | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/rabbitmq-4.lock"
flock 9
if [ ! -e "$root/complete" ]; then
    echo "fetching RabbitMQ 4 of Debian $suite into $root" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    rm -rf "$root"
    mkdir -p "$root" "$work/state/lists/partial" "$work/cache/archives/partial"
    : >"$work/state/status"
    # From where this machine has its own packages.
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $suite main" >"$work/sources.list"
    get() {
        apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$work/state" \
            -o Dir::State::status="$work/state/status" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root \
            -o APT::Keep-Downloaded-Packages=true "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    }
    get update
    # Scripts need what no package names, since every Debian has it.
    get install -y --no-install-recommends --download-only rabbitmq-server bash coreutils grep hostname sed
    # Where directories are links: a package's files must not make directories of them.
    mkdir -p "$root/usr"
    for directory in bin sbin lib lib64; do
        mkdir -p "$root/usr/$directory"
        ln -sfn "usr/$directory" "$root/$directory"
    done
    for package in "$work"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
    done
    mkdir -p "$root/dev" "$root/proc" "$root/tmp" "$root/root" "$root/etc"
    ln -sf bash "$root/usr/bin/sh"
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    touch "$root/complete"
fi
echo "$root"
