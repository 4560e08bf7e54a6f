#!/usr/bin/env bash
# Builds the container image of Tributary from scratch: the binary, the libraries it is linked with, certificates of the
# public authorities, and a user. For `make image`.
#
# Where a Docker engine runs, it builds deploy/Dockerfile and has the image afterwards. Where none runs, the image is put
# together here. Either way it lies in <TARGET>/image/tributary.tar, for `docker load`, `podman load`,
# `ctr --namespace k8s.io images import` or `kind load image-archive`.
#
# Environment: TARGET (cargo's target folder), PROFILE (release or debug), BINARY (one that is built already), IMAGE (the
# name), OUT (where everything is put), SOURCE_DATE_EPOCH (the time of all files).
set -euo pipefail
cd "$(dirname "$0")/.."

target=${TARGET:-$PWD/target}
profile=${PROFILE:-release}
out=${OUT:-$target/image}
ca_bundle=/etc/ssl/certs/ca-certificates.crt

say() { echo "image: $*" >&2; }

if [ -z "${BINARY:-}" ]; then
    flags=()
    [ "$profile" = debug ] || flags=(--profile "$profile")
    cargo build "${flags[@]}" --package all-in-one --bin tributary
fi
binary=${BINARY:-$target/$profile/tributary}
version=$("$binary" --version | cut -d' ' -f2)
image=${IMAGE:-tributary:$version}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# Equal sources make equal images.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

# stage: fills $out/root, which becomes /, and $out/data, which becomes the folder of the data.
stage() {
    local library libraries
    rm -rf "$out"
    mkdir -p "$out/data" "$out/root"/{etc/ssl/certs,usr/bin,var/lib}
    # Stack traces keep their names.
    strip --strip-debug -o "$out/root/usr/bin/tributary" "$binary"
    # Each where the loader looks for it; what the kernel brings along has no path.
    libraries=$(ldd "$binary" | grep -o '/[^ ]*')
    for library in $libraries; do
        mkdir -p "$out/root$(dirname "$library")"
        cp --dereference "$library" "$out/root$library"
    done
    cp --dereference "$ca_bundle" "$out/root$ca_bundle"
    echo 'nonroot:x:65532:65532:nonroot:/var/lib/tributary:/sbin/nologin' >"$out/root/etc/passwd"
    echo 'nonroot:x:65532:' >"$out/root/etc/group"
    # Names are looked up as everywhere: first in /etc/hosts.
    echo 'hosts: files dns' >"$out/root/etc/nsswitch.conf"
    chmod -R u=rwX,go=rX "$out/root" "$out/data"
    find "$out/root" "$out/data" -exec touch --no-dereference --date="@$epoch" {} +
}

# Whether a Docker engine can be asked.
has_engine() { command -v docker >/dev/null && docker version >/dev/null 2>&1; }

with_engine() {
    say "build $image with Docker"
    docker build --quiet --file deploy/Dockerfile --tag "$image" \
        --label "org.opencontainers.image.version=$version" \
        --label "org.opencontainers.image.revision=$revision" \
        "$out" >/dev/null
    docker save --output "$out/tributary.tar" "$image"
}

# digest FILE: its SHA-256 in hexadecimal digits.
digest() { sha256sum "$1" | cut -d' ' -f1; }

# by_hand: what deploy/Dockerfile says, in the format of `docker save`. A test compares the two.
by_hand() {
    say "no Docker engine: put $image together"
    local archive=$out/archive layer=$out/layer.tar flags created architecture
    case $(uname -m) in
        x86_64) architecture=amd64 ;;
        aarch64) architecture=arm64 ;;
        *) architecture=$(uname -m) ;;
    esac
    flags=(--format=gnu --sort=name --numeric-owner --mtime="@$epoch")
    # shellcheck disable=SC2046 # the names of folders at the root
    tar "${flags[@]}" --owner=0 --group=0 --directory="$out/root" --create --file="$layer" $(ls "$out/root")
    tar "${flags[@]}" --owner=65532 --group=65532 --directory="$out" --transform='s,^data,var/lib/tributary,' \
        --append --file="$layer" data
    created=$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)
    mkdir -p "$archive"
    mv "$layer" "$archive/layer.tar"
    cat >"$archive/config.json" <<JSON
{
  "architecture": "$architecture",
  "os": "linux",
  "created": "$created",
  "config": {
    "User": "65532:65532",
    "WorkingDir": "/var/lib/tributary",
    "Entrypoint": ["/usr/bin/tributary"],
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Labels": {
      "org.opencontainers.image.version": "$version",
      "org.opencontainers.image.revision": "$revision"
    }
  },
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$(digest "$archive/layer.tar")"] },
  "history": [{ "created": "$created", "created_by": "deploy/image.sh" }]
}
JSON
    mv "$archive/config.json" "$archive/$(digest "$archive/config.json").json"
    echo "[{\"Config\":\"$(basename "$archive"/*.json)\",\"RepoTags\":[\"$image\"],\"Layers\":[\"layer.tar\"]}]" \
        >"$archive/manifest.json"
    tar "${flags[@]}" --owner=0 --group=0 --directory="$archive" --create --file="$out/tributary.tar" .
    rm -rf "$archive"
}

stage
if has_engine; then with_engine; else by_hand; fi
say "$out/tributary.tar"
