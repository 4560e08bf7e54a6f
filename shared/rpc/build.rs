//! Compiles the contracts of our own services, and the calls to etcd, with a compiler in Rust: nobody needs `protoc`.

use std::path::{Path, PathBuf};

use prost::Message as _;

const SERVICES: [&str; 6] = ["model", "discovery", "scraper", "ingester", "querier", "federation"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let files: Vec<PathBuf> = SERVICES.iter().map(|s| root.join(format!("{s}/v1/{s}.proto"))).collect();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    #[expect(clippy::disallowed_methods, reason = "cargo tells a build script where to write")]
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;

    // Apart, since reflection shows our own services alone.
    let root = root.join("third-party/etcd");
    println!("cargo:rerun-if-changed={}", root.display());
    let etcd = protox::compile(["etcd.proto"], [root])?;
    tonic_prost_build::configure().bytes(".").build_server(false).compile_fds(etcd)?;
    Ok(())
}
