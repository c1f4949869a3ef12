//! Dependencies point one way, foreign crates stay where they belong, and files stay small.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each top-level module may use of the others, in pipeline order. `adapter` and `tensor_file` know only files and
/// values, `generate` decodes with plans of its own, and `kernels` know operations but not who runs them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("config", &["error"]),
    ("data", &["config", "error"]),
    ("tensor_file", &["error"]),
    ("adapter", &["tensor_file", "error"]),
    ("graph", &["error"]),
    ("model", &["adapter", "graph", "tensor_file", "error"]),
    ("autodiff", &["graph", "error"]),
    ("passes", &["graph", "error"]),
    ("plan", &["passes", "graph", "error"]),
    ("kernels", &["graph", "error"]),
    ("executor", &["plan", "passes", "kernels", "graph", "error"]),
    ("optim", &["graph", "error"]),
    ("checkpoint", &["tensor_file", "error"]),
    ("metrics", &["error"]),
    ("tui", &["metrics", "error"]),
    ("generate", &["executor", "graph", "model", "plan", "passes", "error"]),
    ("selftest", &["executor", "autodiff", "graph", "kernels", "plan", "passes", "error"]),
    (
        "train",
        &[
            "adapter",
            "autodiff",
            "checkpoint",
            "config",
            "data",
            "error",
            "executor",
            "generate",
            "graph",
            "metrics",
            "model",
            "optim",
            "passes",
            "plan",
            "tensor_file",
        ],
    ),
    ("bench", &["config", "data", "error", "executor", "graph", "kernels", "plan", "train"]),
    (
        "cli",
        &[
            "adapter",
            "bench",
            "checkpoint",
            "config",
            "data",
            "error",
            "executor",
            "generate",
            "graph",
            "metrics",
            "model",
            "passes",
            "plan",
            "selftest",
            "tensor_file",
            "train",
            "tui",
        ],
    ),
    ("lib", &["error"]),
    ("main", &["cli"]),
];

/// Foreign crates, and the only places (prefixes of paths below src) that may use them.
const FOREIGN: &[(&str, &[&str])] = &[
    ("candle_core", &["executor/", "kernels/", "model/", "checkpoint/"]),
    ("candle_metal_kernels", &["executor/metal/", "executor/candle/capabilities.rs", "kernels/metal/"]),
    ("objc2", &["executor/metal/"]),
    ("objc2_metal", &["executor/metal/", "executor/candle/capabilities.rs", "kernels/metal/"]),
    ("candle_nn", &["executor/", "kernels/", "model/", "checkpoint/"]),
    (
        "tokio",
        &[
            "executor/async_executor.rs",
            "data/prefetch.rs",
            "model/hub_transfer.rs",
            "metrics/",
            "train/",
            "cli/",
        ],
    ),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/"]),
    ("ctrlc", &["cli/"]),
    ("dashmap", &["graph/", "plan/", "executor/"]),
    ("flate2", &["data/"]),
    ("gemm", &["kernels/"]),
    ("hf_hub", &["model/"]),
    ("memmap2", &["tensor_file/", "model/", "data/"]),
    ("minijinja", &["data/"]),
    ("nix", &["cli/", "kernels/", "train/"]),
    ("ratatui", &["tui/"]),
    ("ruzstd", &["data/"]),
    ("tokenizers", &["data/", "model/gguf/", "model/added_tokens.rs"]),
    ("toml", &["config/"]),
];

/// Lines in a file, at most.
const LONGEST_FILE: usize = 500;

/// A file below src.
struct Source {
    /// With forward slashes, relative to src.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Only compiled for tests, which may use anything.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        name == "tests" || name.ends_with("_tests") || ["testing", "speed"].contains(&name)
    }

    /// Code without comments, up to the tests at the file's end, with line numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.text.find("#[cfg(test)]\nmod ").map_or(self.text.as_str(), |end| &self.text[..end]);
        code.lines().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap()))
    }

    /// Top-level modules named after `crate::`, with their lines.
    fn uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (line, code) in self.code() {
            for (at, _) in code.match_indices("crate::") {
                let rest = &code[at + "crate::".len()..];
                let group = rest.strip_prefix('{').map(|group| group.split('}').next().unwrap());
                let names = group.map_or_else(|| vec![rest], |group| group.split(',').collect());
                let word = |name: &str| {
                    name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()
                };
                found.extend(names.into_iter().map(|name| (line, word(name))));
            }
        }
        found
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(found.len() > 100, "the sources were not found");
    found
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_module_has_a_place_in_the_pipeline() {
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(module, _)| *module).collect();
    let sources = sources();
    let found: BTreeSet<&str> = sources.iter().map(Source::module).collect();
    assert_eq!(found, known, "say in ALLOWED what a module may use");
}

#[test]
fn modules_use_only_what_is_left_of_them() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let module = source.module();
        let allowed =
            ALLOWED.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, allowed)| allowed);
        for (line, used) in source.uses() {
            let names_module = ALLOWED.iter().any(|(name, _)| *name == used);
            if names_module && used != module && !allowed.contains(&used.as_str()) {
                problems.push(format!(
                    "src/{}:{line}: {module} must not use {used}, only {allowed:?}",
                    source.path
                ));
            }
        }
    }
    report(problems);
}

#[test]
fn no_cycle_is_allowed() {
    // Everything that a module may use stands before it, so the table itself is an order without cycles.
    let position = |module: &str| ALLOWED.iter().position(|(name, _)| *name == module);
    for (module, allowed) in ALLOWED.iter().filter(|(module, _)| *module != "lib") {
        for used in *allowed {
            assert!(
                position(used) < position(module),
                "{module} may use {used}, which does not stand before it"
            );
        }
    }
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            for (name, places) in FOREIGN {
                let is_used =
                    [format!("{name}::"), format!("use {name};")].iter().any(|part| starts_word(code, part));
                if is_used && !places.iter().any(|place| source.path.starts_with(place)) {
                    problems.push(format!("src/{}:{line}: {name} belongs only in {places:?}", source.path));
                }
            }
        }
    }
    report(problems);
}

/// Whether `part` stands in `code` other than as the end of a longer path or name.
fn starts_word(code: &str, part: &str) -> bool {
    code.match_indices(part).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn only_the_printer_writes_to_the_terminal_and_only_kernels_are_unsafe() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            let writes = ["println!", "print!", "eprintln!", "eprint!", "stdout()", "stderr()"];
            let printer = source.path == "cli/printer.rs";
            if !printer
                && writes
                    .iter()
                    .any(|write| starts_word(code, write) || code.contains(&format!("io::{write}")))
            {
                problems.push(format!(
                    "src/{}:{line}: only cli/printer.rs writes to standard output and error",
                    source.path
                ));
            }
            let is_unsafe =
                code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
            if is_unsafe && source.module() != "kernels" {
                problems.push(format!("src/{}:{line}: unsafe belongs in kernels", source.path));
            }
        }
    }
    report(problems);
}

#[test]
fn no_file_is_too_long() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > LONGEST_FILE)
            .then(|| format!("src/{} has {lines} lines, at most {LONGEST_FILE} fit a head", source.path))
    };
    report(sources().iter().filter_map(long).collect());
}
