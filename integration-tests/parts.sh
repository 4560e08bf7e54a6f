#!/usr/bin/env bash
# Fetches what the tests run beside Tributary, and unpacks it below a folder. The one place that fetches anything.
#
#   parts.sh FOLDER all             Debian's Prometheus (2.42, and the 3.x of Debian 14), promtool, Alertmanager,
#                                   node_exporter, etcd and Docker, and a Python venv
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

# download_of SUITE PACKAGE FOLDER: the same from a release of Debian that this machine does not install from. Its package
# lists are kept apart, and checked with Debian's keys as ever.
download_of() {
    local apt=(apt-get -q -o "Dir::Etc::SourceList=$3/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$3/apt/lists" -o "Dir::Cache=$3/apt/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root)
    mkdir -p "$3/apt/lists/partial" "$3/apt/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $1 main" \
        >"$3/apt/sources.list"
    "${apt[@]}" update >/dev/null
    (cd "$3" && "${apt[@]}" download "$2" >/dev/null)
}

# unpack NAME COMMAND...: makes FOLDER/NAME of the package that the command, with a folder added, leaves there.
unpack() {
    local name=$1 new
    shift
    [ -e "$parts/$name/.done" ] && return
    say "unpack Debian package $name"
    new=$(mktemp -d "$parts/.new-XXXXXX")
    "$@" "$new"
    dpkg -x "$new"/*.deb "$new/root"
    touch "$new/root/.done"
    rm -rf "${parts:?}/$name"
    mv "$new/root" "$parts/$name"
    rm -rf "$new"
}

# debian PACKAGE: unpacks a Debian package into FOLDER/PACKAGE.
debian() {
    unpack "$1" download "$1"
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
        debian prometheus-alertmanager
        debian etcd-server
        unpack prometheus-3 download_of forky prometheus
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
