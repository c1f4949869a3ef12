//! The configuration through its public interface: folders of good and bad files, overrides, round trip, schema.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use lazytune::config::{
    self, Method, ModelLocation, RunConfig, RunLength, ScheduleKind, TargetModules, Validation,
};
use lazytune::{ErrorKind, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with a model folder, a .gguf, rows and an adapter, beside which configurations can be put.
struct Workspace(tempfile::TempDir);

impl Workspace {
    fn new() -> Self {
        let workspace = Self(tempfile::tempdir().unwrap());
        for folder in ["base", "data", "adapter", "quickstart/base", "quickstart/base-init"] {
            fs::create_dir_all(workspace.path(folder)).unwrap();
        }
        fs::create_dir_all(workspace.path("quickstart-generated")).unwrap();
        let files = ["base.gguf", "base/config.json", "data/a.jsonl", "data/b.jsonl", "data/c[1].jsonl"];
        let shipped = ["quickstart/bierce.jsonl", "quickstart-generated/glosses.jsonl", "chat.jinja"];
        for file in files.iter().chain(&shipped) {
            fs::write(workspace.path(file), "{}\n").unwrap();
        }
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, text: &str, overrides: &[&str]) -> Result<RunConfig> {
        let file = self.path("run.toml");
        fs::write(&file, text).unwrap();
        let overrides: Vec<_> = overrides.iter().map(|&set| set.to_owned()).collect();
        config::load(&file, &overrides)
    }

    /// The error's message with the workspace's path left out.
    fn refusal(&self, text: &str, overrides: &[&str]) -> String {
        let error = self.load(text, overrides).expect_err("the configuration must be refused");
        assert_eq!(error.kind(), ErrorKind::User);
        self.anonymous(error.message())
    }

    fn anonymous(&self, message: &str) -> String {
        let message = message.replace(&format!("{}/", self.0.path().display()), "");
        let lines: Vec<_> = message.lines().map(str::trim_end).collect();
        lines.join("\n")
    }
}

const MINIMAL: &str = "[model]\npath = \"base\"\n[data]\ntrain = \"data/a.jsonl\"\n";

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn valid_files_load_and_their_resolved_form_loads_to_the_same() {
    let workspace = Workspace::new();
    for case in cases("tests/configs/valid") {
        let config = workspace.load(&fs::read_to_string(&case).unwrap(), &[]);
        let config = config.unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        // Another folder, so that a path left relative would be noticed.
        let elsewhere = workspace.path("runs/resolved.toml");
        fs::create_dir_all(workspace.path("runs")).unwrap();
        fs::write(&elsewhere, config.to_toml().unwrap()).unwrap();
        let again = config::load(&elsewhere, &[]);
        let again = again.unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        assert_eq!(again, config, "{}", case.display());
    }
}

/// Each invalid file stands beside a .txt with the message; LAZYTUNE_BLESS=1 writes them.
#[test]
fn invalid_files_are_refused_with_the_expected_message() {
    let workspace = Workspace::new();
    let mut wrong = Vec::new();
    for case in cases("tests/configs/invalid") {
        let message = workspace.refusal(&fs::read_to_string(&case).unwrap(), &[]);
        let expected = case.with_extension("txt");
        if std::env::var_os("LAZYTUNE_BLESS").is_some() {
            fs::write(&expected, format!("{message}\n")).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default().trim_end() != message {
            wrong.push(format!("{}:\n{message}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn shipped_configurations_load_and_round_trip() {
    let workspace = Workspace::new();
    for case in cases("configs") {
        let config = workspace.load(&fs::read_to_string(&case).unwrap(), &[]);
        let config = config.unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let again = workspace.load(&config.to_toml().unwrap(), &[]).unwrap();
        assert_eq!(again, config, "{}", case.display());
    }
}

/// `section.key` to value for every assignment in the reference, commented out or not.
fn reference_assignments() -> BTreeMap<String, String> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/reference.toml")).unwrap();
    let mut section = String::new();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        }
        let Some((key, value)) = line.trim_start_matches("# ").split_once(" = ") else { continue };
        if key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            found.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    found
}

#[test]
fn the_reference_lists_every_key_with_its_default() {
    let reference = reference_assignments();
    let schema = config::schema();
    for (section, properties) in schema["properties"].as_object().unwrap() {
        for (key, property) in properties["properties"].as_object().unwrap() {
            let name = format!("{section}.{key}");
            let shown = reference.get(&name).unwrap_or_else(|| panic!("{name} is not in reference.toml"));
            assert!(property["description"].is_string(), "{name} has no description in the schema");
            if let Some(default) = property.get("default") {
                let shown: toml::Table = toml::from_str(&format!("x = {shown}")).unwrap();
                assert_eq!(&serde_json::to_value(&shown["x"]).unwrap(), default, "{name}");
            }
        }
    }
}

#[test]
fn the_schema_requires_a_model_and_data_and_refuses_unknown_keys() {
    let schema = config::schema();
    assert_eq!(schema["required"], serde_json::json!(["model", "data"]));
    assert_eq!(schema["properties"]["model"]["required"], serde_json::json!(["path"]));
    let either = serde_json::json!([{"required": ["train"]}, {"required": ["sources"]}]);
    assert_eq!(schema["properties"]["data"]["anyOf"], either);
    for section in schema["properties"].as_object().unwrap().values() {
        assert_eq!(section["additionalProperties"], false);
    }
}

#[test]
fn defaults_fill_a_minimal_file() {
    let workspace = Workspace::new();
    let config = workspace.load(MINIMAL, &[]).unwrap();
    assert_eq!(config.model.path, ModelLocation::Folder(workspace.path("base")));
    assert_eq!(config.data.train, [workspace.path("data/a.jsonl")]);
    assert_eq!(config.data.validation, Validation::Auto);
    assert_eq!(config.adapter.target_modules, TargetModules::AllLinear);
    assert_eq!(config.train.length, RunLength::Epochs(3.0));
    assert_eq!(config.train.output_dir, std::env::current_dir().unwrap().join("runs/run"));
}

#[test]
fn overrides_replace_values_of_the_file() {
    let workspace = Workspace::new();
    let text = format!("{MINIMAL}[train]\nepochs = 2\nbatch_size = 8\n");
    let overrides = [
        "train.max_steps=7",
        "optimizer.learning_rate=1e-5",
        "schedule.name=linear",
        "model.path=owner/name",
        "model.revision=2024",
        "adapter.target_modules=[\"q_proj\", \"v_proj\"]",
        "train.seed = 1",
        "train.seed=2",
    ];
    let config = workspace.load(&text, &overrides).unwrap();
    assert_eq!(config.train.length, RunLength::Steps(7));
    assert_eq!(config.train.batch_size, 8);
    assert_eq!(config.optimizer.learning_rate, 1e-5);
    assert_eq!(config.schedule.name, ScheduleKind::Linear);
    assert_eq!(config.model.path, ModelLocation::Hub("owner/name".to_owned()));
    assert_eq!(config.model.revision, "2024");
    let modules = ["q_proj".to_owned(), "v_proj".to_owned()];
    assert_eq!(config.adapter.target_modules, TargetModules::List(modules.to_vec()));
    assert_eq!(config.train.seed, 2);
}

#[test]
fn paths_in_overrides_start_from_the_current_folder() {
    let workspace = Workspace::new();
    let set = format!("data.train={}", workspace.path("data/b.jsonl").display());
    let config = workspace.load(MINIMAL, &[&set]).unwrap();
    assert_eq!(config.data.train, [workspace.path("data/b.jsonl")]);
    let refusal = workspace.refusal(MINIMAL, &["data.train=data/b.jsonl"]);
    assert!(refusal.contains("there is no such file"), "{refusal}");
}

#[test]
fn errors_in_overrides_name_the_override() {
    let workspace = Workspace::new();
    let overrides = ["optimizer.learning_rat=1", "train.batch_size=many", "nonsense", "adapter.dropout=2"];
    insta::assert_snapshot!(workspace.refusal(MINIMAL, &overrides), @r"
    run.toml has 4 problems

    error: [optimizer] has no key `learning_rat`
     --> --set:1:1
      |
    1 | optimizer.learning_rat=1
      | ^^^^^^^^^^^^^^^^^^^^^^ unknown key
      |
      = help: did you mean `learning_rate`?

    error: `batch_size` has a value that does not fit
     --> --set:1:18
      |
    1 | train.batch_size=many
      |                  ^^^^ expected a whole number that is not negative, found a string

    error: --set takes section.key=value
     --> --set:1:1
      |
    1 | nonsense
      | ^^^^^^^^
      |
      = help: for example --set optimizer.learning_rate=1e-4

    error: `dropout` is out of range
     --> --set:1:17
      |
    1 | adapter.dropout=2
      |                 ^ must be at least 0 and less than 1
    ");
}

#[test]
fn globs_are_expanded_and_sorted_and_a_literal_name_wins() {
    let workspace = Workspace::new();
    let all = workspace.load("model.path = \"base\"\ndata.train = \"data/*.jsonl\"\n", &[]).unwrap();
    let names = ["data/a.jsonl", "data/b.jsonl", "data/c[1].jsonl"];
    assert_eq!(all.data.train, names.map(|name| workspace.path(name)));
    let literal = workspace.load("model.path = \"base\"\ndata.train = [\"data/c[1].jsonl\"]\n", &[]).unwrap();
    assert_eq!(literal.data.train, [workspace.path("data/c[1].jsonl")]);
}

#[test]
fn a_gguf_file_is_recognized() {
    let workspace = Workspace::new();
    let config = workspace.load(&MINIMAL.replace("\"base\"", "\"base.gguf\""), &[]).unwrap();
    assert_eq!(config.model.path, ModelLocation::Gguf(workspace.path("base.gguf")));
}

#[test]
fn full_training_from_random_weights_is_allowed() {
    let workspace = Workspace::new();
    let config = workspace.load(MINIMAL, &["model.init=random", "adapter.method=full"]).unwrap();
    assert_eq!(config.adapter.method, Method::Full);
}

#[test]
fn without_validation_the_default_interval_is_off() {
    let workspace = Workspace::new();
    let config = workspace.load(MINIMAL, &["data.validation=none"]).unwrap();
    assert_eq!((config.data.validation, config.train.eval_steps), (Validation::None, 0));
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let workspace = Workspace::new();
    let refused = |path: PathBuf| {
        let error = config::load(&path, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        workspace.anonymous(error.message())
    };
    assert_eq!(refused(workspace.path("absent.toml")), "absent.toml: there is no such file");
    assert_eq!(refused(workspace.path("data")), "data is a folder, not a configuration file");
    fs::write(workspace.path("latin.toml"), b"# ok\n# \xe9\n").unwrap();
    assert_eq!(refused(workspace.path("latin.toml")), "latin.toml:2: the file is not UTF-8 text");
    fs::write(workspace.path("large.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    let large = refused(workspace.path("large.toml"));
    assert_eq!(large, "large.toml is larger than 1 MiB: it cannot be a run configuration");
}

#[test]
fn an_error_has_colors_only_on_request() {
    let workspace = Workspace::new();
    let file = workspace.path("run.toml");
    fs::write(&file, "[optimiser]\n").unwrap();
    assert!(!config::load(&file, &[]).unwrap_err().message().contains('\u{1b}'));
    assert!(config::load_with_color(&file, &[], true).unwrap_err().message().contains('\u{1b}'));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_loading_panic(text in "([\\[\\]{}=.,\"'a-z0-9\\n #_-]|\\PC){0,80}", set in "\\PC{0,40}") {
        let workspace = Workspace::new();
        let _ = workspace.load(&text, &[&set]);
        let _ = workspace.load(&format!("[train]\n{text}\n"), &[]);
    }
}
