//! From rows to token ids and the mask of trained tokens, through the public interface.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::Error;
use lazytune::config::{DataSection, Overlong, TrainOn};
use lazytune::data::row::Row;
use lazytune::data::{ChatTokenizer, Message};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::rows::{conversation, fixture, load, load_with, marked, marked_row, section, tokenizer};

#[test]
fn templates_render_as_transformers_renders_them() {
    let cases = std::fs::read_to_string(fixture("chat_templates/rendered.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    assert!(cases.len() >= 30);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let tokenizer = tokenizer(Some(name));
        let messages: Vec<Message> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| Message::from_json(m.clone()).unwrap())
            .collect();
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let text = tokenizer.render(&messages, None, prompt).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{name}, {}", case["conversation"]);
        assert_eq!(
            json!(tokenizer.encode(&text).unwrap()),
            case["input_ids"],
            "{name}, {}",
            case["conversation"]
        );
    }
}

#[test]
fn assistant_turns_are_trained_for_every_template() {
    let chatml = tokenizer(None);
    assert_eq!(
        marked_row(conversation(), &chatml, TrainOn::Assistant),
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n\
         [Hi, ünïcode \u{1F98A}<|im_end|>]\n<|im_start|>user\ntwo plus two?<|im_end|>\n<|im_start|>assistant\n\
         [four<|im_end|>]\n"
    );
    assert_eq!(
        marked_row(conversation(), &tokenizer(Some("llama3")), TrainOn::Assistant),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nYou are helpful.\
         <|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n[Hi, ünïcode \u{1F98A}<|eot_id|>]\
         <|start_header_id|>user<|end_header_id|>\n\ntwo plus two?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n[four<|eot_id|>]"
    );
    assert_eq!(
        marked_row(conversation(), &tokenizer(Some("instruct")), TrainOn::Assistant),
        "<|begin_of_text|>[INST] You are helpful.\n\nHello [/INST][ Hi, ünïcode \u{1F98A}<|im_end|>]\
         [INST] two plus two? [/INST][ four<|im_end|>]"
    );
    assert!(
        marked_row(conversation(), &tokenizer(Some("smollm")), TrainOn::Last)
            .ends_with("\n[four<|im_end|>]\n")
    );
}

#[test]
fn answers_without_an_end_of_turn_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("plain.jinja");
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                  {% if add_generation_prompt %}assistant: {% endif %}";
    std::fs::write(&template, source).unwrap();
    let tokenizer = tokenizer(None).with_template_file(&template).unwrap();
    let row =
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "four"}]});
    assert_eq!(marked_row(row, &tokenizer, TrainOn::Assistant), "user: q\nassistant:[ four\n<|im_end|>]");
}

#[test]
fn plain_rows_end_with_eos() {
    let tokenizer = tokenizer(None);
    let completion = json!({"prompt": "Define fox:", "completion": " a lazy dog"});
    assert_eq!(
        marked_row(completion.clone(), &tokenizer, TrainOn::Assistant),
        "Define fox:[ a lazy dog<|im_end|>]"
    );
    assert_eq!(marked_row(completion, &tokenizer, TrainOn::All), "[Define fox: a lazy dog<|im_end|>]");
    let ended = json!({"text": "hello<|im_end|>"});
    assert_eq!(marked_row(ended, &tokenizer, TrainOn::Assistant), "[hello<|im_end|>]");
    let turns = json!({
        "prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        "completion": [{"role": "assistant", "content": "d"}],
    });
    let marked = marked_row(turns, &tokenizer, TrainOn::Assistant);
    assert!(
        marked.contains("assistant\nb<|im_end|>") && marked.ends_with("assistant\n[d<|im_end|>]\n"),
        "{marked}"
    );
}

#[test]
fn bad_rows_are_named_with_file_and_line() {
    let good = r#"{"text": "hello world"}"#;
    let tokenizer = tokenizer(Some("instruct"));
    for (row, part) in [
        (r#"{"text": "#, "rows.jsonl:2:8: invalid JSON: EOF while parsing a value"),
        (r#"{"words": 1, "b": 2}"#, "rows.jsonl:2: a row of no known kind: it has \"words\", \"b\""),
        (r#"{"messages": [{"role": "user"}]}"#, "rows.jsonl:2: messages[0]: a message has no \"content\""),
        (
            r#"{"messages": [{"role": "assistant", "content": "x"}]}"#,
            "rows.jsonl:2: the chat template fails: roles must alternate",
        ),
    ] {
        let error =
            load_with(&format!("{good}\n{row}\n{good}"), Some(&tokenizer), &section(TrainOn::Assistant, 64));
        let error: Error = error.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn turns_of_a_rewritten_history_are_trained_one_by_one() {
    let tokenizer = tokenizer(Some("rewriting"));
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let thinking = json!({"messages": [
        turn("user", "a"), turn("assistant", "<think>x</think>b"), turn("user", "c"), turn("assistant", "d"),
    ]});
    let split = load(std::slice::from_ref(&thinking), &tokenizer, TrainOn::Assistant).unwrap();
    let texts: Vec<String> = split.examples().iter().map(|example| marked(example, &tokenizer)).collect();
    let first = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[<think>x</think>b<|im_end|>]\n";
    let second = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n\
                  <|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d<|im_end|>]\n";
    assert_eq!(texts, [first, second]);
    assert_eq!((split.counts().rows, split.counts().rewritten), (1, 1));
    // Both parts of a row go to the same side.
    assert!(split.clone().split(0.5).validation.is_none());
    let mut untrained = thinking.clone();
    untrained["messages"][1]["train"] = json!(false);
    let error = load(&[untrained], &tokenizer, TrainOn::All).unwrap_err();
    assert!(
        error.to_string().contains("rows.jsonl:1: messages[1]: the chat template prints earlier turns"),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("train_on"));
    let last = marked_row(thinking, &tokenizer, TrainOn::Last);
    assert!(last.contains("assistant\nb<|im_end|>") && last.ends_with("[d<|im_end|>]\n"), "{last}");
}

#[test]
fn data_sets_without_anything_to_train_are_refused() {
    let tokenizer = tokenizer(None);
    let question = json!({"messages": [{"role": "user", "content": "q"}]});
    let error = load(&[question.clone(), question.clone()], &tokenizer, TrainOn::Assistant).unwrap_err();
    assert!(error.to_string().contains("of 2 rows, 0 are too long and 2 have no trained token"), "{error}");
    let mixed = load(&[question, conversation()], &tokenizer, TrainOn::Assistant).unwrap();
    assert_eq!((mixed.len(), mixed.counts().rows, mixed.counts().unsupervised), (1, 2, 1));
    let empty = load_with("\n\n", Some(&tokenizer), &section(TrainOn::All, 64)).unwrap_err();
    assert!(empty.to_string().ends_with("rows.jsonl has no rows"), "{empty}");
    let unread = load_with(r#"{"text": "x"}"#, None, &section(TrainOn::All, 64)).unwrap_err();
    assert!(unread.to_string().contains("needs a tokenizer"), "{unread}");
}

#[test]
fn long_rows_are_cut_or_dropped_and_counted() {
    let rows = "{\"input_ids\": [1, 2, 3, 4, 5]}\n{\"input_ids\": [6, 7]}\n";
    let cut = load_with(rows, None, &section(TrainOn::All, 3)).unwrap();
    assert_eq!((cut.examples()[0].input_ids.as_slice(), cut.counts().truncated), (&[1, 2, 3][..], 1));
    let dropping = DataSection { overlong: Overlong::Drop, ..section(TrainOn::All, 3) };
    let dropped = load_with(rows, None, &dropping).unwrap();
    assert_eq!((dropped.len(), dropped.counts().dropped), (1, 1));
    let error = cut.check_vocabulary(7).unwrap_err();
    assert!(error.to_string().contains("rows.jsonl:2: token id 7 does not exist"), "{error}");
    assert!(cut.check_vocabulary(8).is_ok());
}
proptest! {
    #[test]
    fn no_row_crashes_the_reader(text in "\\PC{0,40}", number in any::<i64>()) {
        let tokenizer = tokenizer(None);
        for row in [
            json!({"text": text}),
            json!({"prompt": text, "completion": text}),
            json!({"messages": [{"role": text, "content": text}, {"role": "assistant", "content": text}]}),
            json!({"input_ids": [number], "labels": [number]}),
            json!({text.clone(): [number]}),
        ] {
            let fields = row.as_object().unwrap().clone();
            if let Ok((_, row)) = Row::from_json(fields)
                && let Ok(examples) = lazytune::data::encode::encode_row(row, Some(&tokenizer), TrainOn::Assistant)
            {
                prop_assert!(examples.iter().all(|(ids, supervised)| ids.len() == supervised.len()));
            }
        }
    }
}

#[test]
fn plain_rows_follow_the_tokenizers_own_bos_and_eos() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(fixture("tokenizer/tokenizer.json")).unwrap()).unwrap();
    let special = |id: &str, token: u32| json!({"id": id, "ids": [token], "tokens": [id]});
    let piece = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [piece("<|begin_of_text|>"), {"Sequence": {"id": "A", "type_id": 0}}, piece("<|im_end|>")],
        "pair": [],
        "special_tokens": {
            "<|begin_of_text|>": special("<|begin_of_text|>", 3), "<|im_end|>": special("<|im_end|>", 2),
        },
    });
    std::fs::write(&path, file.to_string()).unwrap();
    let config = r#"{"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = ChatTokenizer::from_folder(folder.path()).unwrap();
    let row = json!({"prompt": "hello", "completion": " world"});
    let marked = marked_row(row, &tokenizer, TrainOn::Assistant);
    assert_eq!(marked, "<|begin_of_text|>hello[ world<|im_end|>]");
    let ids = tokenizer.encode_with_bos("hello").unwrap();
    assert_eq!((ids[0], ids.contains(&2)), (3, false));
    assert!(!tokenizer.has_template());
    let error = load(&[conversation()], &tokenizer, TrainOn::Assistant).unwrap_err();
    assert!(error.hint_text().unwrap().contains("data.chat_template"), "{error}");
}

#[test]
fn named_templates_and_template_files_are_found() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("tokenizer/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let rendered = || {
        let tokenizer = ChatTokenizer::from_folder(folder.path()).unwrap();
        tokenizer.render(&[Message::new("user", "q")], None, false).unwrap()
    };
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "rag", "template": "rag"}, {"name": "default", "template": "named"}]}"#,
    );
    assert_eq!(rendered(), "named");
    write("chat_template.jinja", "file {{ messages[0].content }}\n");
    assert_eq!(rendered(), "file q");
    write("tokenizer.json", "{");
    let error = ChatTokenizer::from_folder(folder.path()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json: not a tokenizer"), "{error}");
    assert!(ChatTokenizer::from_folder(&folder.path().join("none")).unwrap_err().hint_text().is_some());
}
