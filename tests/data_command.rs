//! `lazytune data` as the real binary.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use serde_json::{Value, json};
use support::prepared::{CONFIG, workspace};

#[test]
fn rows_are_shown_with_what_is_trained_in_brackets() {
    let workspace = workspace();
    let outcome = workspace.run(&["data", "run.toml", "--plain", "--rows", "4"]).exits(0);
    let text = outcome.stdout;
    assert_eq!(outcome.stderr, "");
    assert!(!text.contains('\u{1b}'), "{text}");
    for part in [
        "rows.jsonl:1  messages  ",
        "<|im_start|>user\nDefine love, part 0<|im_end|>\n<|im_start|>assistant\n[A temporary insanity.<|im_end|>]\n\nrows.jsonl:2  prompt/completion  ",
        "Define war 1:[ a by-product of peace<|im_end|>]\n\nrows.jsonl:3  text  ",
        "rows.jsonl:4  tokenized  4 tokens, 2 trained\n",
        "read         20 rows: 5 messages, 5 prompt/completion, 5 text, 5 tokenized\n",
        "train        ",
        "held out     ",
        "leaks        none\n",
        "epoch        ",
        "sequences of 64 tokens, ",
        "lengths      4 to ",
        "      <= 16  ####",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("rows.jsonl:5  "));
}

#[test]
fn problems_are_counted_and_json_agrees() {
    let workspace = workspace();
    let question = json!({"messages": [{"role": "user", "content": "q"}]}).to_string();
    let long = json!({"text": "the lazy fox ".repeat(100)}).to_string();
    let good = json!({"text": "a good row"}).to_string();
    workspace.write("rows.jsonl", [&*question, &long, &good, &good, "{\"text\": \"another\"}"].join("\n"));
    workspace.write("test.jsonl", [&*good, "{\"text\": \"unseen\"}"].join("\n"));
    let config =
        CONFIG.replace("validation = \"auto\"\nvalidation_fraction = 0.2", "validation = \"test.jsonl\"");
    workspace.write("run.toml", config);
    let text = workspace.run(&["data", "run.toml", "--rows", "2"]).exits(0).stdout;
    for part in [
        "rows.jsonl:1  messages  left out: nothing in it is trained\n",
        "rows.jsonl:2  text  64 tokens, 63 trained  cut to data.max_length\n",
        "1 row cut to data.max_length, which loses ",
        "1 row skipped because nothing is trained there",
        "1 row equal to one before; data.deduplicate = true would skip such rows",
        "leaks        1 validation rows are also trained on, so that evaluation looks better than it is: ",
        "over data.max_length",
        "█",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let outcome =
        workspace.run(&["data", "run.toml", "--json", "--rows", "1", "--set", "data.deduplicate=true"]);
    let json: Value = serde_json::from_str(&outcome.exits(0).stdout).unwrap();
    let counts = &json["report"]["counts"];
    assert_eq!(counts["kinds"], json!({"messages": 1, "text": 4}));
    assert_eq!((&counts["duplicates"], &counts["deduplicated"]), (&json!(1), &json!(1)));
    assert_eq!((&json["report"]["train"]["rows"], &json["report"]["leaks"]), (&json!(3), &json!(1)));
    assert_eq!(json["rows"].as_array().unwrap().len(), 1);
}

#[test]
fn bad_rows_are_listed_and_counted_and_the_others_measured() {
    let workspace = workspace();
    let rows = [
        "{\"text\": \"x y z\"}",
        "{\"text\": ",
        "{\"prompt\": \"x\", \"chosen\": \"y\", \"rejected\": \"z\"}",
    ];
    let lines = [rows.join("\n").as_bytes(), b"\n\xff\n{\"text\": \"another\"}\n"].concat();
    workspace.write("rows.jsonl", lines);
    let outcome = workspace.run(&["data", "run.toml", "--plain"]).exits(1);
    assert!(outcome.stdout.contains("read         2 rows: 2 text\n"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("bad rows     3 of 5 rows cannot be used"), "{}", outcome.stdout);
    let outcome =
        outcome.says(&["rows.jsonl:2:", "invalid JSON", "hint: each line must be one complete JSON object"]);
    let outcome = outcome.says(&[
        "rows.jsonl:3: a preference row",
        "rename \"chosen\"",
        "rows.jsonl:4:1: not valid UTF-8",
    ]);
    outcome.says(&["3 rows cannot be used, in ", "hint: mend or remove them"]);
    workspace.run(&["train", "run.toml"]).exits(1).says(&["rows.jsonl:2:", "invalid JSON"]);

    let many = "{\"text\": 7}\n".repeat(5000) + rows[0] + "\n{\"text\": \"more\"}\n";
    workspace.write("rows.jsonl", many);
    let outcome = workspace.run(&["data", "run.toml", "--json"]).exits(1);
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let report = &json["report"];
    assert_eq!((&report["bad"], &report["counts"]["rows"]), (&json!(5000), &json!(2)));
    let named = report["bad_rows"].as_array().unwrap();
    assert_eq!((named.len(), &named[19]["row"]), (20, &json!(20)));
    assert!(named[19]["problem"].as_str().unwrap().contains("rows.jsonl:20: \"text\" must be a string"));
    outcome.says(&["5000 rows cannot be used; the first 20 are in "]);
}

#[test]
fn nothing_to_train_is_said_and_leaks_are_told_before_training() {
    let workspace = workspace();
    workspace.write("rows.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}\n");
    let text = workspace.run(&["data", "run.toml", "--plain"]).exits(0).stdout;
    assert!(text.contains("problem      nothing is trained"), "{text}");

    let rows: String = (0..6).map(|row| format!("{{\"text\": \"row {row} of six\"}}\n")).collect();
    workspace.write("rows.jsonl", &rows);
    workspace.write("test.jsonl", &rows);
    let config = CONFIG
        .replace("validation = \"auto\"\nvalidation_fraction = 0.2", "validation = \"test.jsonl\"")
        .replace("train = [\"rows.jsonl\"]", "sources = [{ path = \"rows.jsonl\", weight = 2.0 }]");
    workspace.write("run.toml", config);
    let outcome = workspace.run(&["train", "run.toml", "--max-steps", "1", "--run-dir", "run"]).exits(0);
    outcome.says(&["note: 6 validation rows are also trained on", "rows.jsonl:1", "..."]);
}
