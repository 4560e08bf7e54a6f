//! Compiles `proto/third-party` in pure Rust; no `protoc` is needed.
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/third-party");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "prometheus/remote.proto",
        "io/prometheus/write/v2/types.proto",
        "io/prometheus/client/metrics.proto",
    ];
    let descriptors = protox::compile(files, [root])?;
    // Chunks are passed on as they came, so they stay slices of the body.
    prost_build::Config::new().bytes([".prometheus.Chunk.data"]).compile_fds(descriptors)?;
    Ok(())
}
