#!/usr/bin/env bash
# Builds Tributary and runs its five roles on loopback: 1 discovery, 2 scrapers, 2 ingesters, 2 queriers, 1 gateway, with
# an etcd of three members, SeaweedFS as S3 server, and node_exporter to scrape. For `make cluster`.
#
# Environment: TARGET (cargo's target folder), PROFILE (release or debug), DATA (where everything is kept).
set -euo pipefail
cd "$(dirname "$0")/.."

target=${TARGET:-$PWD/target}
profile=${PROFILE:-release}
data=${DATA:-$target/cluster}
parts=$target/parts

say() { echo "cluster: $*" >&2; }
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

flags=()
[ "$profile" = debug ] || flags=(--profile "$profile")
cargo build "${flags[@]}" --package all-in-one --bin tributary
integration-tests/parts.sh "$parts" all

for port in 9090 9601 9602 9603 9604 9612 9613 9614 4317 4327 2379 2381 2383 8333; do
    if answers "$port"; then
        say "port $port is taken: another Tributary, Prometheus or etcd runs; stop it first"
        exit 1
    fi
done

pids=()
# start NAME COMMAND...: in a process group of its own, so that Ctrl-C reaches it once, through `finish`.
start() {
    local name=$1
    shift
    set -m
    "$@" >>"$data/$name.log" 2>&1 </dev/null &
    set +m
    pids+=("$!")
}
# Last started, first stopped, each completely before the next: what writes stops before what stores.
finish() {
    trap '' INT TERM
    local at
    for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
        kill -TERM "${pids[at]}" 2>/dev/null || true
        wait "${pids[at]}" 2>/dev/null || true
    done
}
trap finish EXIT
trap 'exit 0' INT TERM
# await WHAT COMMAND...: tries for a minute.
await() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 300; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    say "$what does not get ready; logs in $data"
    exit 1
}

mkdir -p "$data/s3"
if ! answers 9100; then
    start node_exporter "$parts/prometheus-node-exporter/usr/bin/prometheus-node-exporter" \
        --web.listen-address=127.0.0.1:9100
fi

peers=m0=http://127.0.0.1:2380,m1=http://127.0.0.1:2382,m2=http://127.0.0.1:2384
for number in 0 1 2; do
    client=http://127.0.0.1:$((2379 + 2 * number)) peer=http://127.0.0.1:$((2380 + 2 * number))
    start "etcd-$number" "$parts/etcd-server/usr/bin/etcd" --name="m$number" --data-dir="$data/etcd-$number" \
        --listen-client-urls="$client" --advertise-client-urls="$client" \
        --listen-peer-urls="$peer" --initial-advertise-peer-urls="$peer" --initial-cluster="$peers" \
        --logger=zap --log-level=warn
done

export AWS_ENDPOINT_URL=http://127.0.0.1:8333 AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
export AWS_ACCESS_KEY_ID=tributary AWS_SECRET_ACCESS_KEY=tributary
cat >"$data/s3.json" <<JSON
{"identities": [{"name": "tributary", "actions": ["Admin"],
  "credentials": [{"accessKey": "$AWS_ACCESS_KEY_ID", "secretKey": "$AWS_SECRET_ACCESS_KEY"}]}]}
JSON
TMPDIR=$data start s3 "$parts/venv/bin/weed" server -ip=127.0.0.1 -ip.bind=127.0.0.1 -filer -s3 \
    -s3.port=8333 -s3.port.iceberg=0 -s3.port.lance=0 -s3.config="$data/s3.json" -dir="$data/s3" \
    -master.volumeSizeLimitMB=64 -volume.max=200
# A folder there is a bucket.
await "the S3 server" curl -sf -X POST http://127.0.0.1:8888/buckets/metrics/
await etcd curl -sf http://127.0.0.1:2379/health

# role NAME ROLE PORT FLAG...
role() {
    local name=$1 role=$2 port=$3
    shift 3
    start "$name" "$target/$profile/tributary" "$role" --cluster.member-name="$name" \
        --web.listen-address="127.0.0.1:$port" \
        --etcd.endpoints=http://127.0.0.1:2379,http://127.0.0.1:2381,http://127.0.0.1:2383 "$@"
}
storage=s3://metrics/tributary
for number in 0 1; do
    echo "path: $data/ingester-$number" >"$data/ingester-$number.yml"
    role "ingester-$number" ingester "$((9603 + 10 * number))" --service.config="$data/ingester-$number.yml" \
        --storage.url="$storage" --otlp.grpc-address="127.0.0.1:$((4317 + 10 * number))"
done
role querier-0 querier 9604 --storage.url="$storage"
role querier-1 querier 9614 --storage.url="$storage"
role gateway-0 gateway 9090 --service.config=deploy/config/cluster/gateway.yml
role discovery-0 discovery 9601 --service.config=deploy/config/cluster/discovery.yml
role scraper-0 scraper 9602
role scraper-1 scraper 9612
for port in 9601 9602 9612 9603 9613 9604 9614 9090; do
    await "the member at port $port" curl -sf "http://127.0.0.1:$port/-/ready"
done
say "http://127.0.0.1:9090, OTLP gRPC at 127.0.0.1:4317 and :4327, logs and data in $data; Ctrl-C stops"
# Until one of them ends by itself, which is told by its log.
wait -n "${pids[@]}" || true
say "a process has ended; logs in $data"
exit 1
