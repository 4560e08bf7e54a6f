//! The architecture as a test: which way dependencies point, what is banned, what must be there.
//!
//! Reads manifests and sources as text; builds nothing. Each rule is a function from a tree to its faults, so that
//! the tests below can plant a fault in a tree of their own and see it found.
//!
//! A new crate gets its layer in [`LAYERS`]; the rules are STYLE's sections 1, 2, 6, 7, 11 and 12.

#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// Every crate and the layer it stands on. A crate uses lower layers only.
const LAYERS: [(&str, u8); 30] = [
    ("fault", 1),
    ("model", 1),
    ("prometheus-proto", 1),
    ("exposition", 2),
    ("relabel", 2),
    ("remote-protocol", 2),
    ("otlp", 2),
    ("promql-syntax", 2),
    ("http-api", 2),
    ("rpc", 2),
    ("yaml-tree", 2),
    ("promql-engine", 3),
    ("tsdb", 3),
    ("prometheus-tsdb", 3),
    ("coordination", 3),
    ("telemetry", 4),
    ("service-runtime", 4),
    ("group-writer", 4),
    ("config-watch", 4),
    ("http-client", 4),
    ("rules", 4),
    ("backfill", 4),
    ("test-kit", 4),
    ("discovery", 5),
    ("scraper", 5),
    ("ingester", 5),
    ("querier", 5),
    ("federation-gateway", 5),
    ("all-in-one", 6),
    ("integration-tests", 6),
];

/// The arrows that are allowed within a layer.
const SIDEWAYS: [(&str, &str); 2] = [("model", "fault"), ("service-runtime", "telemetry")];

/// For tests alone.
const TEST_ONLY: &str = "test-kit";

/// What only one crate may use.
const RESERVED: [(&str, &str); 2] = [("kube", "discovery"), ("k8s-openapi", "discovery")];

/// What does I/O, or waits, or brings a runtime along: not below layer 3.
const NO_IO: [&str; 21] = [
    "async-std",
    "axum",
    "etcd-client",
    "hickory-resolver",
    "hyper",
    "hyper-util",
    "mio",
    "notify",
    "object_store",
    "reqwest",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tokio-rustls",
    "tokio-stream",
    "tokio-util",
    "tonic",
    "tonic-health",
    "tonic-prost",
    "tonic-reflection",
];

/// What `rpc` alone may use of that.
const RPC_ONLY: [&str; 3] = ["tonic", "tonic-health", "tonic-prost"];

/// What layer 3 does not know.
const NO_TRANSPORT: [&str; 7] =
    ["axum", "hyper", "hyper-util", "tonic", "tonic-health", "tonic-prost", "tonic-reflection"];

/// Where sources lie.
const SOURCE_ROOTS: [&str; 3] = ["services", "shared", "integration-tests"];

/// A tree of crates, read once.
struct Tree {
    root: PathBuf,
    crates: Vec<Crate>,
    sources: Vec<Source>,
    faults: Vec<String>,
}

/// A crate as its manifest has it.
struct Crate {
    /// Relative to the root.
    folder: PathBuf,
    name: String,
    /// What is needed to build and run it, and whether the workspace says which version.
    dependencies: BTreeMap<String, bool>,
    /// What only its tests need.
    dev_dependencies: BTreeMap<String, bool>,
}

impl Crate {
    fn layer(&self) -> Option<u8> {
        layer(&self.name)
    }

    fn is_shared(&self) -> bool {
        self.folder.starts_with("shared")
    }
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree =
            Self { root: root.to_owned(), crates: Vec::new(), sources: Vec::new(), faults: Vec::new() };
        for file in SOURCE_ROOTS.iter().flat_map(|folder| files(&root.join(folder))) {
            let path = file.strip_prefix(root).expect("found below the root").to_owned();
            if path.file_name().is_some_and(|name| name == "Cargo.toml") {
                tree.read_manifest(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                match fs::read_to_string(&file) {
                    Ok(text) => tree.sources.push(Source::parse(path, &text)),
                    Err(error) => tree.faults.push(format!("{}: {error}", path.display())),
                }
            }
        }
        tree
    }

    fn read_manifest(&mut self, path: &Path) {
        let folder = path.parent().expect("a manifest lies in a folder").to_owned();
        let text = fs::read_to_string(self.root.join(path)).expect("a readable manifest");
        let manifest: toml::Table = match text.parse() {
            Ok(manifest) => manifest,
            Err(error) => return self.faults.push(format!("{}: {error}", path.display())),
        };
        let name = manifest.get("package").and_then(|package| package.get("name"));
        let name = name.and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        let mut dependencies = dependencies(&manifest, &["dependencies", "build-dependencies"]);
        if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
            for target in targets.values().filter_map(toml::Value::as_table) {
                dependencies.extend(self::dependencies(target, &["dependencies", "build-dependencies"]));
            }
        }
        let dev_dependencies = self::dependencies(&manifest, &["dev-dependencies"]);
        self.crates.push(Crate { folder, name, dependencies, dev_dependencies });
    }

    /// Everything that is wrong, by all rules.
    fn check(mut self) -> Vec<String> {
        let mut faults = std::mem::take(&mut self.faults);
        for one in &self.crates {
            faults.extend(placed(one).into_iter().chain(arrows(one)).chain(versions(one)));
            faults.extend(self.crate_root(one));
        }
        for source in &self.sources {
            faults.extend(source.faults());
            faults.extend(names::faults(source));
        }
        faults.extend(self.only_protos());
        faults.sort();
        faults
    }

    /// `lib.rs` says what the crate is, and in `shared/` that everything public is documented.
    fn crate_root(&self, one: &Crate) -> Vec<String> {
        let path = one.folder.join("src/lib.rs");
        let Some(source) = self.sources.iter().find(|source| source.path == path) else { return Vec::new() };
        let mut faults = Vec::new();
        if !source.starts_with_docs {
            faults.push(format!("{}: must begin with `//!`", path.display()));
        }
        let asks = |lint: &str| source.lines.iter().any(|line| line.code.contains(lint));
        if one.is_shared() && !asks("#![warn(missing_docs)]") && !asks("#![deny(missing_docs)]") {
            faults.push(format!("{}: a shared crate has `#![warn(missing_docs)]`", path.display()));
        }
        faults
    }

    /// Nothing but `.proto` lies in `proto/`.
    fn only_protos(&self) -> Vec<String> {
        let strange = files(&self.root.join("proto"))
            .into_iter()
            .filter(|file| file.extension().is_none_or(|extension| extension != "proto"));
        strange.map(|file| format!("{}: only .proto files lie in proto/", self.relative(&file))).collect()
    }

    fn relative(&self, file: &Path) -> String {
        file.strip_prefix(&self.root).unwrap_or(file).display().to_string()
    }
}

fn dependencies(table: &toml::Table, sections: &[&str]) -> BTreeMap<String, bool> {
    let tables = sections.iter().filter_map(|section| table.get(*section)).filter_map(toml::Value::as_table);
    tables.flatten().map(|(name, spec)| (package(name, spec), is_from_workspace(spec))).collect()
}

/// The dependency's own name, whatever it is called here.
fn package(name: &str, spec: &toml::Value) -> String {
    spec.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned()
}

fn is_from_workspace(spec: &toml::Value) -> bool {
    // A crate may name itself by its path, to turn a feature on for its tests.
    let is_itself = spec.get("path").and_then(toml::Value::as_str) == Some(".");
    is_itself || spec.get("workspace").and_then(toml::Value::as_bool) == Some(true)
}

/// Crates lie flat, are named after their folder, and have a layer.
fn placed(one: &Crate) -> Vec<String> {
    let folder = one.folder.display();
    let depth = one.folder.components().count();
    let is_flat = depth == if one.folder.starts_with("integration-tests") { 1 } else { 2 };
    let mut faults = Vec::new();
    if !is_flat {
        faults.push(format!("{folder}: crates lie flat in services/ and shared/"));
    }
    let named = one.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if one.name != named {
        faults.push(format!("{folder}: the package is called {:?}, not like its folder", one.name));
    }
    if one.layer().is_none() {
        faults.push(format!("{folder}: {:?} has no layer in tidy.rs", one.name));
    }
    faults
}

/// Dependencies point downwards.
fn arrows(one: &Crate) -> Vec<String> {
    let Some(layer) = one.layer() else { return Vec::new() };
    let name = one.name.as_str();
    let mut faults = Vec::new();
    for (other, is_for_tests) in one
        .dependencies
        .keys()
        .map(|other| (other.as_str(), false))
        .chain(one.dev_dependencies.keys().map(|other| (other.as_str(), true)))
    {
        if other == name {
            continue;
        }
        if let Some(other_layer) = self::layer(other) {
            let is_test_kit = other == TEST_ONLY;
            let points_down = other_layer < layer || SIDEWAYS.contains(&(name, other));
            if is_test_kit && !is_for_tests && name != "integration-tests" {
                faults.push(format!("{name} -> {other}: {other} is a dev-dependency only"));
            } else if !points_down && !is_test_kit {
                faults.push(format!("{name} -> {other}: layer {layer} must not use layer {other_layer}"));
            }
            continue;
        }
        if let Some((_, owner)) = RESERVED.iter().find(|(what, owner)| *what == other && *owner != name) {
            faults.push(format!("{name} -> {other}: only {owner} uses it"));
        }
        let is_rpc = name == "rpc" && RPC_ONLY.contains(&other);
        if !is_for_tests && layer <= 2 && NO_IO.contains(&other) && !is_rpc {
            faults.push(format!("{name} -> {other}: layers 1 and 2 do no I/O"));
        }
        if !is_for_tests && layer == 3 && NO_TRANSPORT.contains(&other) {
            faults.push(format!("{name} -> {other}: layer 3 knows no transport"));
        }
    }
    faults
}

/// Every version stands in the root manifest.
fn versions(one: &Crate) -> Vec<String> {
    let all = one.dependencies.iter().chain(&one.dev_dependencies);
    let own = all.filter(|(_, is_from_workspace)| !**is_from_workspace);
    own.map(|(other, _)| format!("{} -> {other}: the version belongs in the root Cargo.toml", one.name))
        .collect()
}

/// All files below a folder, sorted; build output and test data apart.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("a readable entry").path();
        if !path.is_dir() {
            found.push(path);
        } else if !path.ends_with("target") && !path.ends_with("testdata") {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the tree");
    let tree = Tree::read(root);
    assert!(tree.crates.len() > 10 && tree.sources.len() > 20, "the tree was not found");
    let faults = tree.check();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A tree that is tidy but for the files given, and its faults.
fn faults_with(planted: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = |name: &str, rest: &str| format!("[package]\nname = {name:?}\n{rest}");
    let tokio = "[dependencies]\ntokio.workspace = true\nmodel.workspace = true\n";
    let docs = "//! A crate.\n#![warn(missing_docs)]\n";
    let mut tree: BTreeMap<String, String> = BTreeMap::from([
        ("shared/fault/Cargo.toml".to_owned(), manifest("fault", "")),
        ("shared/fault/src/lib.rs".to_owned(), docs.to_owned()),
        ("shared/model/Cargo.toml".to_owned(), manifest("model", "[dependencies]\nfault.workspace = true\n")),
        ("shared/model/src/lib.rs".to_owned(), docs.to_owned()),
        ("services/ingester/Cargo.toml".to_owned(), manifest("ingester", tokio)),
        ("services/ingester/src/lib.rs".to_owned(), "//! A service.\n".to_owned()),
        ("proto/model/v1/model.proto".to_owned(), String::new()),
    ]);
    tree.extend(planted.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    for (path, text) in tree {
        let file = folder.path().join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, text).expect("written");
    }
    Tree::read(folder.path()).check()
}

#[test]
fn a_tidy_tree_has_no_faults() {
    assert_eq!(faults_with(&[]), [""; 0]);
}

#[test]
fn planted_manifests_are_found() {
    for (path, manifest, fault) in [
        (
            "shared/fault/Cargo.toml",
            "[package]\nname = 'fault'\n[dependencies]\nmodel.workspace = true\n",
            "fault -> model: layer 1 must not use layer 1",
        ),
        (
            "shared/tsdb/Cargo.toml",
            "[package]\nname = 'tsdb'\n[dev-dependencies]\ntelemetry.workspace = true\n",
            "tsdb -> telemetry: layer 3 must not use layer 4",
        ),
        (
            "services/querier/Cargo.toml",
            "[package]\nname = 'querier'\n[dependencies]\ningester.workspace = true\n",
            "querier -> ingester: layer 5 must not use layer 5",
        ),
        (
            "shared/group-writer/Cargo.toml",
            "[package]\nname = 'group-writer'\n[dependencies]\ntelemetry.workspace = true\n",
            "group-writer -> telemetry: layer 4 must not use layer 4",
        ),
        (
            "shared/relabel/Cargo.toml",
            "[package]\nname = 'relabel'\n[target.'cfg(unix)'.dependencies]\nrt = { package = 'tokio', workspace = true }\n",
            "relabel -> tokio: layers 1 and 2 do no I/O",
        ),
        (
            "shared/rpc/Cargo.toml",
            "[package]\nname = 'rpc'\n[dependencies]\ntonic.workspace = true\naxum.workspace = true\n",
            "rpc -> axum: layers 1 and 2 do no I/O",
        ),
        (
            "shared/coordination/Cargo.toml",
            "[package]\nname = 'coordination'\n[dependencies]\ntokio.workspace = true\ntonic.workspace = true\n",
            "coordination -> tonic: layer 3 knows no transport",
        ),
        (
            "services/scraper/Cargo.toml",
            "[package]\nname = 'scraper'\n[dependencies]\nkube.workspace = true\n",
            "scraper -> kube: only discovery uses it",
        ),
        (
            "services/scraper/Cargo.toml",
            "[package]\nname = 'scraper'\n[dependencies]\ntest-kit.workspace = true\n",
            "scraper -> test-kit: test-kit is a dev-dependency only",
        ),
        (
            "services/scraper/Cargo.toml",
            "[package]\nname = 'scraper'\n[build-dependencies]\nprost = '0.14'\n",
            "scraper -> prost: the version belongs in the root Cargo.toml",
        ),
        (
            "services/scraper/Cargo.toml",
            "[package]\nname = 'scrape'\n",
            "services/scraper: the package is called \"scrape\", not like its folder",
        ),
        (
            "shared/gossip/Cargo.toml",
            "[package]\nname = 'gossip'\n",
            "shared/gossip: \"gossip\" has no layer in tidy.rs",
        ),
        (
            "shared/model/rpc/Cargo.toml",
            "[package]\nname = 'rpc'\n",
            "shared/model/rpc: crates lie flat in services/ and shared/",
        ),
    ] {
        let faults = faults_with(&[(path, manifest)]);
        assert!(faults.contains(&fault.to_owned()), "{fault}\n{faults:#?}");
        assert!(faults.len() <= 2, "{faults:#?}");
    }
    let test_kit = "[package]\nname = 'scraper'\n[dev-dependencies]\ntest-kit.workspace = true\n";
    assert_eq!(faults_with(&[("services/scraper/Cargo.toml", test_kit)]), [""; 0], "what tests may use");
    let broken = faults_with(&[("services/scraper/Cargo.toml", "[package")]);
    assert!(broken[0].starts_with("services/scraper/Cargo.toml: "), "{broken:?}");
}

#[test]
fn planted_sources_are_found() {
    let lib = "services/ingester/src/lib.rs";
    for (path, text, fault) in [
        (lib, "fn f() {}\n", "services/ingester/src/lib.rs: must begin with `//!`"),
        (
            "shared/model/src/lib.rs",
            "//! A crate.\n// #![warn(missing_docs)]\n",
            "shared/model/src/lib.rs: a shared crate has `#![warn(missing_docs)]`",
        ),
        (
            "services/ingester/src/flush/mod.rs",
            "",
            "services/ingester/src/flush/mod.rs: modules are name.rs, not mod.rs",
        ),
        (lib, "//! x\nfn f() { todo!() }\n", "services/ingester/src/lib.rs:2: `todo!` is not built"),
        (
            lib,
            "//! x\nfn f() { unimplemented!(\"x\") }\n",
            "services/ingester/src/lib.rs:2: `unimplemented!` is not built",
        ),
        (
            lib,
            "//! x\n\n// TODO: later\n",
            "services/ingester/src/lib.rs:3: a TODO names its issue: TODO(#123)",
        ),
        (lib, "//! x\n/* FIXME(#1) */\n", "services/ingester/src/lib.rs:2: FIXME is written TODO(#123)"),
        (lib, "//! x\n#[ignore]\nfn f() {}\n", "services/ingester/src/lib.rs:2: `#[ignore]` names its issue"),
        (
            lib,
            "//! x\n#[ignore = \"slow\"]\nfn f() {}\n",
            "services/ingester/src/lib.rs:2: `#[ignore]` names its issue",
        ),
        ("services/ingester/src/utils.rs", "", "services/ingester/src/utils.rs: \"utils\" is no name"),
        (
            "services/ingester/src/flush_helpers.rs",
            "",
            "services/ingester/src/flush_helpers.rs: \"helpers\" is no name",
        ),
        ("services/ingester/src/data.rs", "", "services/ingester/src/data.rs: \"data\" is no name"),
        (lib, "//! x\nmod common;\n", "services/ingester/src/lib.rs:2: \"common\" is no name"),
        (
            lib,
            "//! x\npub(crate) struct FlushManager;\n",
            "services/ingester/src/lib.rs:2: \"Manager\" is no name",
        ),
        (lib, "//! x\ntype Info = u8;\n", "services/ingester/src/lib.rs:2: \"Info\" is no name"),
        (lib, "//! x\ntrait Base {}\n", "services/ingester/src/lib.rs:2: \"Base\" is no name"),
        (lib, "//! x\nasync fn do_flush() {}\n", "services/ingester/src/lib.rs:2: \"do_flush\" is no name"),
        (lib, "//! x\npub const fn new2() {}\n", "services/ingester/src/lib.rs:2: \"new2\" is no name"),
        ("proto/model/v1/notes.md", "", "proto/model/v1/notes.md: only .proto files lie in proto/"),
    ] {
        assert_eq!(faults_with(&[(path, text)]), [fault], "{text}");
    }
}

#[test]
fn what_only_looks_like_a_fault_is_none() {
    let innocent = "//! Says todo!() in its docs.\n\
        // TODO(#12): with an issue.\n\
        const A: &str = \"TODO: todo!() \\\" unimplemented!()\";\n\
        const B: &str = r#\"todo!() \" // TODO\"#;\n\
        const C: char = '\"'; // a quote\n\
        fn f<'a>(x: &'a str) -> &'a str { x }\n\
        /* outer /* inner */ struct FlushManager; */\n\
        struct Metadata; struct Database; struct Baseline; struct Processed;\n\
        fn domain() {} fn document() {} fn renew2d() {}\n\
        mod metadata; mod grpc_handlers;\n\
        impl Body for X {\n    type Data = Bytes; }\n\
        #[ignore = \"#12: needs a second machine\"]\n\
        fn g() {}\n";
    assert_eq!(faults_with(&[("services/ingester/src/lib.rs", innocent)]), [""; 0]);
}
