//! A workspace with a model, rows and a configuration, and ways to break them.

use std::path::PathBuf;

use serde_json::json;

use super::workspace::Workspace;

pub const CONFIG: &str = r#"
[model]
path = "base"
threads = 2
[data]
train = ["rows.jsonl"]
validation = "auto"
validation_fraction = 0.2
max_length = 64
[adapter]
r = 4
[optimizer]
learning_rate = 0.02
[train]
batch_size = 4
max_steps = 8
save_steps = 4
eval_steps = 4
"#;

/// Rows of each kind, no two alike.
pub fn rows() -> String {
    let row = |row: usize| match row % 4 {
        0 => json!({"messages": [
            {"role": "user", "content": format!("Define love, part {row}")},
            {"role": "assistant", "content": "A temporary insanity."},
        ]}),
        1 => json!({"prompt": format!("Define war {row}: "), "completion": "a by-product of peace"}),
        2 => json!({"text": format!("A day of twenty-four hours, {row} of them misspent.")}),
        _ => json!({"input_ids": [20, 30, 40, 50 + row], "labels": [-100, -100, 40, 50 + row]}),
    };
    (0..20).map(|number| row(number).to_string() + "\n").collect()
}

/// A folder with a model, rows and a configuration.
pub fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.model("base");
    workspace.write("rows.jsonl", rows());
    workspace.write("run.toml", CONFIG);
    workspace
}

/// Trains an adapter, and says where it is.
pub fn train(workspace: &Workspace) -> PathBuf {
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--quiet"]).exits(0);
    workspace.path("run/adapter")
}

#[track_caller]
pub fn assert_silent(stream: &str) {
    assert!(stream.is_empty(), "{stream}");
}

pub fn replace(workspace: &Workspace, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(workspace.path(file)).unwrap();
    assert!(text.contains(from), "{from:?} is not in {file}");
    workspace.write(file, text.replace(from, to));
}

pub fn truncate(workspace: &Workspace, file: &str, keep: usize) {
    let bytes = std::fs::read(workspace.path(file)).unwrap();
    workspace.write(file, &bytes[..bytes.len() * keep / 100]);
}
