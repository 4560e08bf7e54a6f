#!/usr/bin/env bash
# Builds Tributary and runs it on loopback with the sample config, and node_exporter beside it. For `make run`.
#
# Environment: TARGET (cargo's target folder), PROFILE (release or debug), DATA (where samples are kept).
set -euo pipefail
cd "$(dirname "$0")/.."

target=${TARGET:-$PWD/target}
profile=${PROFILE:-release}
data=${DATA:-$target/run/data}
config=deploy/config/prometheus.yml

say() { echo "run: $*" >&2; }
is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

flags=()
[ "$profile" = debug ] || flags=(--profile "$profile")
cargo build "${flags[@]}" --package all-in-one --bin tributary

if is_taken 9090; then
    say "port 9090 is taken: another Prometheus or Tributary runs; stop it first"
    exit 1
fi
exporter=
if is_taken 9100; then
    say "port 9100 is taken: whatever listens there is scraped as node_exporter"
else
    node_exporter=$(command -v node_exporter || command -v prometheus-node-exporter || true)
    if [ -z "$node_exporter" ]; then
        integration-tests/parts.sh "$target/parts" node_exporter
        node_exporter=$target/parts/prometheus-node-exporter/usr/bin/prometheus-node-exporter
    fi
    mkdir -p "$target/run"
    "$node_exporter" --web.listen-address=127.0.0.1:9100 >"$target/run/node_exporter.log" 2>&1 </dev/null &
    exporter=$!
fi

server=
finish() {
    trap '' INT TERM
    [ -z "$server" ] || kill -TERM "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    [ -z "$exporter" ] || kill -TERM "$exporter" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 0' INT TERM

say "http://127.0.0.1:9090, data in $data; Ctrl-C stops"
# In a process group of its own, so that Ctrl-C reaches it once, through `finish`: a second signal would end it at once.
set -m
"$target/$profile/tributary" \
    --config.file="$config" \
    --storage.tsdb.path="$data" \
    --web.enable-lifecycle \
    --web.enable-admin-api &
server=$!
set +m
status=0
wait "$server" || status=$?
server=
exit "$status"
