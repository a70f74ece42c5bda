#!/bin/sh
# Makes the secrets of docker-compose.yml in the directory that is given, unless they are there: one file each, for one user.
set -eu
umask 077
make() {
    if [ -s "$1/$2" ]; then return; fi
    # Written aside: a file that is there is whole.
    head -c 32 /dev/urandom | base64 >"$1/.$2"
    chown "$3" "$1/.$2"
    mv "$1/.$2" "$1/$2"
}
# What signs the webhooks, for Forebay and for the demo's sender.
make "$1" webhook 10001:10001
# The password of Grafana's admin.
make "$1" grafana 472:0
