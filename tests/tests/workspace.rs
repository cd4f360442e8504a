//! What the workspace promises about itself: layers whose arrows point down only, manifests that
//! inherit, sources without leftovers.
//!
//! Reads `cargo metadata` and the files of the repository. Starts nothing else, writes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates from the bottom up. A crate may depend on crates of lower rows only.
const LAYERS: &[&[&str]] = &[
    &["mega-proto"],
    &["mega-crypto"],
    &["mega-api", "mega-store"],
    &["mega-tree", "mega-transfer"],
    &["mega-vfs"],
    &["megamount"],
    &["megamount-tests"],
];

/// Shares no code with the client, so that two mirrored mistakes cannot agree. The binary embeds it
/// for `demo:`, the tests talk to it; other crates may use it as a dev-dependency.
const EMULATOR: &str = "mega-emulator";
const USERS_OF_THE_EMULATOR: &[&str] = &["megamount", "megamount-tests"];

/// Only the binary crate knows that there is a kernel, a command line and a background.
const ONLY_IN_THE_BINARY: &[&str] = &["fuser", "clap", "daemonize"];

#[test]
fn dependency_arrows_point_down() {
    let mut complaints = String::new();
    for (package, dependency, kind) in workspace_arrows() {
        if let Err(reason) = judge(&package, &dependency, kind) {
            writeln!(complaints, "{package} -> {dependency} ({kind:?}): {reason}").unwrap();
        }
    }
    assert!(
        complaints.is_empty(),
        "forbidden dependencies:\n{complaints}"
    );
}

#[test]
fn the_judge_knows_up_from_down() {
    use Kind::{Dev, Normal};
    assert!(judge("mega-api", "mega-proto", Normal).is_ok());
    assert!(judge("mega-vfs", "mega-emulator", Dev).is_ok());
    assert!(judge("megamount", "mega-emulator", Normal).is_ok());
    for (package, dependency, kind) in [
        ("mega-proto", "mega-crypto", Normal),
        ("mega-store", "mega-api", Normal),
        ("mega-tree", "mega-transfer", Normal),
        ("mega-store", "mega-vfs", Dev),
        ("mega-vfs", "mega-emulator", Normal),
        ("mega-emulator", "mega-proto", Normal),
        ("mega-emulator", "mega-crypto", Dev),
        ("mega-vfs", "mega-brandnew", Normal),
    ] {
        assert!(
            judge(package, dependency, kind).is_err(),
            "{package} -> {dependency} ({kind:?})"
        );
    }
}

#[test]
fn every_member_has_a_layer() {
    for package in metadata_packages() {
        let name = text(&package, "name");
        assert!(
            name == EMULATOR || layer(name).is_some(),
            "{name} is in the workspace but has no layer: say in tests/workspace.rs where it belongs"
        );
    }
}

#[test]
fn only_the_binary_crate_names_fuser_clap_and_daemonize() {
    for package in metadata_packages() {
        let name = text(&package, "name");
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = text(dependency, "name");
            assert!(
                name == "megamount" || !ONLY_IN_THE_BINARY.contains(&dependency),
                "{name} depends on {dependency}, which only megamount may name"
            );
        }
    }
}

#[test]
fn members_inherit_lints_version_and_compiler() {
    for manifest in member_manifests() {
        let content = read(&manifest);
        let lines: Vec<&str> = content.lines().map(str::trim).collect();
        for key in ["version", "edition", "rust-version", "license"] {
            assert!(
                lines.contains(&format!("{key}.workspace = true").as_str()),
                "{} must say `{key}.workspace = true`",
                manifest.display()
            );
        }
        assert!(
            lines
                .windows(2)
                .any(|pair| pair == ["[lints]", "workspace = true"]),
            "{} must say `[lints]`, `workspace = true`",
            manifest.display()
        );
    }
}

/// Every version stands once, in the root manifest.
#[test]
fn members_name_no_versions() {
    for manifest in member_manifests() {
        let content = read(&manifest);
        let mut in_dependencies = false;
        for line in content.lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
                continue;
            }
            if !in_dependencies || line.is_empty() || line.starts_with('#') || !line.contains('=') {
                continue;
            }
            assert!(
                line.contains("workspace = true"),
                "{}: `{line}` must be `workspace = true` with its version in the root manifest",
                manifest.display()
            );
        }
    }
}

#[test]
fn sources_are_ascii() {
    let mut complaints = String::new();
    for file in files(&["crates", "tests", "fuzz", "scripts", ".ci"]) {
        let extension = file.extension().and_then(|text| text.to_str());
        // Test data may be in any script of the world; programs and manifests are not.
        if !matches!(extension, None | Some("rs" | "toml" | "sh")) {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if !line.is_ascii() {
                writeln!(complaints, "{}:{}", file.display(), number + 1).unwrap();
            }
        }
    }
    assert!(complaints.is_empty(), "not ASCII:\n{complaints}");
}

#[test]
fn modules_are_files_beside_their_directories() {
    for file in files(&["crates", "tests", "fuzz"]) {
        assert!(
            file.file_name().is_none_or(|name| name != "mod.rs"),
            "{}: write foo.rs beside foo/ instead",
            file.display()
        );
    }
}

#[test]
fn nothing_is_left_to_do_in_the_sources() {
    // In two pieces each, or this file would find itself.
    let leftovers = [concat!("todo", "!("), concat!("unimplemented", "!(")];
    for file in rust_sources() {
        for (number, line) in read(&file).lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for leftover in leftovers {
                assert!(
                    !line.contains(leftover),
                    "{}:{}: {leftover} in a finished tree",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

/// A statement of docs/SEMANTICS.md is worth what the test is worth that it names.
#[test]
fn tests_that_documents_name_exist() {
    for (document, least) in [("docs/SEMANTICS.md", 15), ("docs/COMPARISON.md", 10)] {
        let named = named_tests(document);
        assert!(
            named > least,
            "{document} names only {named} tests: this test is blind"
        );
    }
}

/// How many tests a document names. Each has to exist.
fn named_tests(name: &str) -> u32 {
    let document = read(&repository().join(name));
    let mut named = 0;
    for line in document.lines() {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once('`') {
            let Some((quoted, after)) = after.split_once('`') else {
                break;
            };
            rest = after;
            let Some((file, test)) = quoted.split_once(".rs::") else {
                continue;
            };
            if file == "file" {
                continue; // The document's own explanation of the form.
            }
            named += 1;
            if after.starts_with(" (not yet)") {
                continue;
            }
            let exists = ["tests/tests", "crates/megamount/tests/program"]
                .map(|directory| repository().join(format!("{directory}/{file}.rs")))
                .into_iter()
                .any(|path| path.is_file() && read(&path).contains(&format!("fn {test}(")));
            assert!(
                exists,
                "{name} names the test {quoted}, which does not exist"
            );
        }
    }
    named
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

/// Whether `package` may depend on `dependency`, both workspace members.
fn judge(package: &str, dependency: &str, kind: Kind) -> Result<(), String> {
    if package == EMULATOR {
        return Err(format!("{EMULATOR} uses no other crate of the workspace"));
    }
    if dependency == EMULATOR {
        return if kind == Kind::Dev || USERS_OF_THE_EMULATOR.contains(&package) {
            Ok(())
        } else {
            Err(format!(
                "outside tests only {USERS_OF_THE_EMULATOR:?} use {EMULATOR}"
            ))
        };
    }
    match (layer(package), layer(dependency)) {
        (Some(from), Some(to)) if to < from => Ok(()),
        (Some(from), Some(to)) if to == from => {
            Err("crates of one layer do not use each other".into())
        }
        (Some(_), Some(_)) => Err("the arrow points up".into()),
        (None, _) | (_, None) => Err("one of them has no layer".into()),
    }
}

fn layer(package: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&package))
}

/// Every dependency of one workspace member on another.
fn workspace_arrows() -> Vec<(String, String, Kind)> {
    let packages = metadata_packages();
    let mut arrows = Vec::new();
    for package in &packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            // Members are reached by path, everything else through the registry.
            if dependency["path"].is_null() {
                continue;
            }
            let kind = match dependency["kind"].as_str() {
                None => Kind::Normal,
                Some("build") => Kind::Build,
                Some("dev") => Kind::Dev,
                Some(other) => panic!("cargo metadata has a new kind of dependency: {other}"),
            };
            arrows.push((
                text(package, "name").into(),
                text(dependency, "name").into(),
                kind,
            ));
        }
    }
    assert!(
        !arrows.is_empty(),
        "cargo metadata shows no arrow at all: this test is blind"
    );
    arrows
}

fn metadata_packages() -> Vec<Value> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(repository())
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn member_manifests() -> Vec<PathBuf> {
    metadata_packages()
        .iter()
        .map(|package| text(package, "manifest_path").into())
        .collect()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("cargo metadata: no text `{member}` in {value}"))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn rust_sources() -> Vec<PathBuf> {
    let mut sources = files(&["crates", "tests", "fuzz"]);
    sources.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    assert!(
        sources.len() > LAYERS.len(),
        "no sources found: this test is blind"
    );
    sources
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All files below these directories of the repository, except what builds and package managers make.
fn files(directories: &[&str]) -> Vec<PathBuf> {
    let generated = [
        "target",
        "node_modules",
        "corpus",
        "artifacts",
        "__pycache__",
    ];
    let mut waiting: Vec<PathBuf> = directories
        .iter()
        .map(|name| repository().join(name))
        .collect();
    let mut found = Vec::new();
    while let Some(directory) = waiting.pop() {
        // fuzz/ is made later than the rest and may be absent.
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || generated.contains(&name.as_str()) || name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
