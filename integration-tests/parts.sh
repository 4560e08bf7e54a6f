#!/usr/bin/env bash
# Fetches what the tests run beside Tributary, and unpacks it below a folder. The one place that fetches anything.
#
#   parts.sh FOLDER all             Debian's Prometheus, promtool, node_exporter, etcd, VictoriaMetrics and Docker, and a
#                                   Python venv
#   parts.sh FOLDER node_exporter   node_exporter alone
#   parts.sh FOLDER etcd            etcd alone
#
# Packages are unpacked, never installed: installing them would start daemons on the standard ports. Does nothing when
# everything is there; a half-fetched part is fetched anew.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
parts=${1:?usage: parts.sh FOLDER all|node_exporter|etcd}
what=${2:?usage: parts.sh FOLDER all|node_exporter|etcd}
mkdir -p "$parts"
parts=$(cd "$parts" && pwd)

# Two runs at once wait for each other.
exec 9>"$parts/.lock"
flock 9

say() { echo "parts: $*" >&2; }

# download PACKAGE FOLDER: fetches a Debian package; refreshes the package lists once when it is not known.
download() {
    (cd "$2" && apt-get -q download "$1" >/dev/null 2>&1) && return
    say "apt-get update"
    apt-get -q update >/dev/null || say "apt-get update failed"
    (cd "$2" && apt-get -q download "$1" >/dev/null)
}

# debian PACKAGE: unpacks a Debian package into FOLDER/PACKAGE.
debian() {
    [ -e "$parts/$1/.done" ] && return
    say "unpack Debian package $1"
    local new
    new=$(mktemp -d "$parts/.new-XXXXXX")
    download "$1" "$new"
    dpkg -x "$new"/*.deb "$new/root"
    touch "$new/root/.done"
    rm -rf "${parts:?}/$1"
    mv "$new/root" "$parts/$1"
    rm -rf "$new"
}

# venv: a Python environment with what requirements.txt names.
venv() {
    local wanted="$here/requirements.txt"
    cmp -s "$wanted" "$parts/venv/.done" && return
    say "make a Python venv"
    rm -rf "$parts/venv"
    python3 -m venv "$parts/venv"
    "$parts/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$parts/venv/.done"
}

case $what in
    node_exporter) debian prometheus-node-exporter ;;
    etcd) debian etcd-server ;;
    all)
        debian prometheus
        debian prometheus-node-exporter
        debian etcd-server
        debian victoria-metrics
        debian docker.io
        debian containerd
        debian runc
        venv
        ;;
    *)
        say "unknown part: $what"
        exit 2
        ;;
esac
