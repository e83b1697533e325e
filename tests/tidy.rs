//! The house: which crate knows which, what the pure one may not touch, and that the map names every module.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which of our crates a crate may know, for its own code.
const ARROWS: [(&str, &[&str]); 5] = [
    ("protocol", &[]),
    ("actors", &["kvspace-protocol"]),
    ("config", &["kvspace-protocol"]),
    ("client", &["kvspace-protocol"]),
    ("node", &["kvspace-actors", "kvspace-client", "kvspace-config", "kvspace-protocol"]),
];

/// What would make `protocol` impure. Tests and comments count as well: the words have no business there.
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::time",
    "std::env",
    "std::process",
    "SystemTime",
    "Instant::",
    "tokio",
    "async fn",
    "HashMap",
    "HashSet",
];

/// Lines after which a file holds more than one idea.
const FILE_LINES_MAX: usize = 600;

#[test]
fn each_crate_knows_only_those_below_it() {
    for (name, allowed) in ARROWS {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let known = section(&manifest, "[dependencies]").lines().filter_map(|line| {
            let dependency = line.split(['.', ' ', '=']).next()?;
            dependency.starts_with("kvspace").then(|| dependency.to_owned())
        });
        for dependency in known {
            assert!(allowed.contains(&&*dependency), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn protocol_has_no_clock_socket_file_thread_or_unordered_map() {
    for file in rust_files(&root().join("protocol/src")) {
        let text = read(&file);
        for word in IMPURE {
            assert!(!text.contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn only_the_clock_modules_read_the_time() {
    let clocks = ["actors/src/clock.rs", "client/src/clock.rs"];
    for file in sources() {
        let allowed = clocks.iter().any(|clock| file.ends_with(clock));
        let text = read(&file);
        let reads = text.contains("SystemTime::now") || text.contains("Instant::now");
        assert!(allowed || !reads, "{} reads the clock; take the time as an argument", file.display());
    }
}

#[test]
fn no_file_has_grown_beyond_one_idea() {
    for file in sources() {
        let lines = read(&file).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", file.display());
    }
}

#[test]
fn modules_are_files_beside_their_folder() {
    for file in sources() {
        assert!(!file.ends_with("mod.rs"), "{}: name it like its folder, beside it", file.display());
    }
}

#[test]
fn the_map_names_every_module() {
    let map = read(&root().join("ARCHITECTURE.md"));
    let mut missing = BTreeMap::new();
    for (name, _) in ARROWS {
        let source = root().join(name).join("src");
        let modules = rust_files(&source).into_iter().filter(|file| file.parent() == Some(&source));
        let names: BTreeSet<_> = modules.filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect();
        for module in names.difference(&["lib", "main"].map(String::from).into()) {
            if !map.contains(&format!("`{name}/src/{module}.rs`")) {
                missing.insert(format!("{name}/src/{module}.rs"), ());
            }
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {:?}", missing.keys());
}

fn root() -> PathBuf {
    let node = Path::new(env!("CARGO_MANIFEST_DIR"));
    node.parent().expect("the node crate lies in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source file of ours but tests.
fn sources() -> Vec<PathBuf> {
    ARROWS.iter().flat_map(|(name, _)| rust_files(&root().join(name).join("src"))).collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn section<'a>(manifest: &'a str, name: &str) -> &'a str {
    let Some((_, rest)) = manifest.split_once(name) else { return "" };
    rest.split("\n[").next().unwrap_or_default()
}
