//! What lazytune trains, loaded by Python's peft and transformers.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::Path;
use std::process::Command;

/// `LAZYTUNE_PYTHON` names a Python with scripts/requirements-goldens.txt, `LAZYTUNE_MODEL` a folder of SmolLM2-135M.
#[test]
#[ignore = "needs Python with peft: cargo test --test python -- --ignored"]
fn adapters_of_every_kind_load_in_peft() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var("LAZYTUNE_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(python);
    command.arg(root.join("scripts/check_peft.py")).arg("--suite");
    command.args(["--lazytune", env!("CARGO_BIN_EXE_lazytune")]);
    if let Ok(model) = std::env::var("LAZYTUNE_MODEL") {
        command.args(["--model", &model]);
    }
    assert!(command.current_dir(root).status().unwrap().success());
}
