//! The data pipeline from files to batches, through its public interface.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use lazytune::config::{DataSection, Overlong, TrainOn, Validation};
use lazytune::data::loader::evaluation_batches;
use lazytune::data::row::Row;
use lazytune::data::{
    Batch, ChatTokenizer, Dataset, Example, Loader, LoaderOptions, LoaderState, Message, PADDING_SEGMENT,
    PrefetchingLoader, RowSource, Splits, Window,
};
use lazytune::{Error, Result};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// The fixture tokenizer with its own template (ChatML), or another one.
fn tokenizer(template: Option<&str>) -> ChatTokenizer {
    let tokenizer = ChatTokenizer::from_folder(&fixture("tokenizer")).unwrap();
    match template {
        Some(name) => {
            tokenizer.with_template_file(&fixture(&format!("chat_templates/{name}.jinja"))).unwrap()
        }
        None => tokenizer,
    }
}

fn section(train_on: TrainOn, max_length: usize) -> DataSection {
    DataSection {
        validation: Validation::None,
        validation_fraction: 0.1,
        max_length,
        train_on,
        ..DataSection::default()
    }
}

fn write_rows(rows: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, rows).unwrap();
    (folder, path)
}

fn load_with(rows: &str, tokenizer: Option<&ChatTokenizer>, section: &DataSection) -> Result<Dataset> {
    let (_folder, path) = write_rows(rows);
    Dataset::load(&[path], tokenizer, section, &mut |_| {})
}

fn load(rows: &[Value], tokenizer: &ChatTokenizer, train_on: TrainOn) -> Result<Dataset> {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    load_with(&lines.join("\n"), Some(tokenizer), &section(train_on, 512))
}

/// The first example as text, with trained stretches in brackets.
fn marked(dataset: &Dataset, tokenizer: &ChatTokenizer) -> String {
    let example = &dataset.examples()[0];
    let mut text = String::new();
    let mut start = 0;
    for end in 1..=example.len() {
        if end == example.len() || example.supervised[end] != example.supervised[start] {
            let piece = tokenizer.decode_with_special(&example.input_ids[start..end]).unwrap();
            text.push_str(&if example.supervised[start] { format!("[{piece}]") } else { piece });
            start = end;
        }
    }
    text
}

fn marked_row(row: Value, tokenizer: &ChatTokenizer, train_on: TrainOn) -> String {
    marked(&load(&[row], tokenizer, train_on).unwrap(), tokenizer)
}

fn conversation() -> Value {
    json!({"messages": [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi, ünïcode \u{1F98A}"},
        {"role": "user", "content": "two plus two?"},
        {"role": "assistant", "content": "four"},
    ]})
}

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
fn rewritten_history_is_refused_with_a_way_out() {
    let tokenizer = tokenizer(Some("rewriting"));
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let thinking = json!({"messages": [
        turn("user", "a"), turn("assistant", "<think>x</think>b"), turn("user", "c"), turn("assistant", "d"),
    ]});
    let error = load(std::slice::from_ref(&thinking), &tokenizer, TrainOn::Assistant).unwrap_err();
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

#[test]
fn order_is_kept_over_many_threads_and_chunks() {
    let lines: Vec<String> =
        (0..3000).map(|row| format!("{{\"input_ids\": [{row}, {}]}}", row + 1)).collect();
    let (_folder, path) = write_rows(&lines.join("\n"));
    let mut reported = Vec::new();
    let dataset =
        Dataset::load(&[path], None, &section(TrainOn::All, 16), &mut |rows| reported.push(rows)).unwrap();
    assert!(dataset.examples().iter().enumerate().all(|(row, example)| example.input_ids[0] as usize == row));
    assert!(dataset.examples().iter().enumerate().all(|(row, example)| example.source.row == row + 1));
    assert!(reported.is_sorted() && reported.last() == Some(&3000));
}

#[test]
fn validation_comes_from_a_split_or_from_files() {
    let lines: Vec<String> = (0..100).map(|row| format!("{{\"input_ids\": [{row}, 1]}}")).collect();
    let (_folder, path) = write_rows(&lines.join("\n"));
    let mut section = DataSection { train: vec![path.clone()], ..section(TrainOn::All, 16) };
    let parts = |section: &DataSection| {
        let splits = Splits::load(section, None, &mut |_| {}).unwrap();
        (splits.train.len(), splits.validation.map(|validation| validation.len()))
    };
    assert_eq!(parts(&section), (100, None));
    section.validation = Validation::Auto;
    let (train, validation) = parts(&section);
    assert!(train + validation.unwrap() == 100 && train > 70, "{train}");
    section.validation = Validation::Files(vec![path]);
    assert_eq!(parts(&section), (100, Some(100)));
}

/// A data set whose rows are told apart by their first token.
fn numbered(lengths: &[usize]) -> Arc<Dataset> {
    let file: Arc<Path> = Arc::from(Path::new("rows.jsonl"));
    let examples = lengths.iter().enumerate().map(|(row, &length)| Example {
        input_ids: (0..length as u32).map(|offset| row as u32 * 100 + offset).collect(),
        supervised: vec![true; length],
        source: RowSource { file: Arc::clone(&file), row: row + 1 },
        content_hash: row as u64,
    });
    Arc::new(Dataset::from_examples(examples, &section(TrainOn::All, 32)))
}

fn options(batch_size: usize, gradient_accumulation_steps: usize) -> LoaderOptions {
    let seed = 42;
    LoaderOptions {
        batch_size,
        gradient_accumulation_steps,
        shuffle: true,
        packing: false,
        seed,
        max_length: 32,
    }
}

fn rows_of(window: &Window) -> Vec<usize> {
    window.batches.iter().flat_map(|batch| batch.sources.iter().map(|source| source.row)).collect()
}

fn take(loader: &mut Loader, count: usize) -> Vec<Window> {
    (0..count).map(|_| loader.next_window().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_epoch_uses_every_row_once(
        lengths in proptest::collection::vec(2usize..=32, 1..90),
        batch_size in 1usize..6,
        accumulation in 1usize..4,
        shuffle in any::<bool>(),
        packing in any::<bool>(),
    ) {
        let dataset = numbered(&lengths);
        let options = LoaderOptions { shuffle, packing, ..options(batch_size, accumulation) };
        let mut loader = Loader::new(Arc::clone(&dataset), options).unwrap();
        let per_epoch = loader.windows_per_epoch();
        for epoch in 1..=2 {
            let windows = take(&mut loader, per_epoch);
            let mut rows: Vec<usize> = windows.iter().flat_map(rows_of).collect();
            if !shuffle && !packing {
                prop_assert!(rows.is_sorted());
            }
            rows.sort_unstable();
            prop_assert!(rows.into_iter().eq(1..=lengths.len()));
            let (last, full) = windows.split_last().unwrap();
            let sequences = |window: &Window| window.batches.iter().map(|batch| batch.rows).sum::<usize>();
            prop_assert!(full.iter().all(|window| sequences(window) == batch_size * accumulation));
            prop_assert!((1..=batch_size * accumulation).contains(&sequences(last)));
            prop_assert_eq!(last.epoch, f64::from(epoch));
            prop_assert_eq!(windows.iter().map(|window| window.tokens).sum::<usize>(), dataset.tokens());
            let supervised = windows.iter().map(|window| window.supervised_tokens).sum::<usize>();
            prop_assert_eq!(supervised, dataset.supervised_tokens());
            prop_assert_eq!(loader.windows_per_epoch(), per_epoch);
        }
    }

    #[test]
    fn any_state_resumes_to_the_same_windows(
        lengths in proptest::collection::vec(2usize..=32, 1..60),
        consumed in 0usize..40,
        shuffle in any::<bool>(),
        packing in any::<bool>(),
    ) {
        let dataset = numbered(&lengths);
        let options = LoaderOptions { shuffle, packing, ..options(2, 2) };
        let mut loader = Loader::new(Arc::clone(&dataset), options).unwrap();
        take(&mut loader, consumed);
        let saved = serde_json::to_string(loader.state()).unwrap();
        let expected = take(&mut loader, 10);
        let state: LoaderState = serde_json::from_str(&saved).unwrap();
        let mut resumed = Loader::from_state(dataset, options, state).unwrap();
        prop_assert_eq!(take(&mut resumed, 10), expected);
    }

    #[test]
    fn packed_segments_are_whole_rows(lengths in proptest::collection::vec(2usize..=32, 1..60)) {
        let dataset = numbered(&lengths);
        let mut loader = Loader::new(dataset, LoaderOptions { packing: true, ..options(3, 1) }).unwrap();
        for _ in 0..loader.windows_per_epoch() {
            for batch in loader.next_window().unwrap().batches {
                check_segments(&batch)?;
            }
        }
    }
}

/// Each segment is one row of [`numbered`] from its first token on, and positions count from its start.
fn check_segments(batch: &Batch) -> std::result::Result<(), TestCaseError> {
    for index in 0..batch.input_ids.len() {
        if batch.segments[index] == PADDING_SEGMENT {
            continue;
        }
        prop_assert_eq!(batch.input_ids[index] % 100, batch.positions[index]);
        if batch.positions[index] > 0 {
            prop_assert_eq!(batch.segments[index], batch.segments[index - 1]);
            prop_assert_eq!(batch.input_ids[index], batch.input_ids[index - 1] + 1);
        }
    }
    Ok(())
}

#[test]
fn splitting_a_window_differently_moves_no_row() {
    let lengths: Vec<usize> = (0..37).map(|row| row * 11 % 30 + 2).collect();
    let windows = |batch_size, accumulation| {
        let mut loader = Loader::new(numbered(&lengths), options(batch_size, accumulation)).unwrap();
        take(&mut loader, 20).iter().map(rows_of).collect::<Vec<_>>()
    };
    let whole = windows(4, 1);
    assert_eq!(windows(2, 2), whole);
    assert_eq!(windows(1, 4), whole);
}

#[test]
fn a_window_may_be_larger_than_the_data() {
    let mut loader = Loader::new(numbered(&[4, 9, 5]), options(usize::MAX, usize::MAX)).unwrap();
    assert_eq!(loader.windows_per_epoch(), 1);
    let mut rows = rows_of(&loader.next_window().unwrap());
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3]);
    assert_eq!(loader.next_window().unwrap().epoch, 2.0);
}

#[test]
fn resuming_with_other_data_or_options_is_refused() {
    let dataset = numbered(&[4, 5, 6]);
    let state = Loader::new(Arc::clone(&dataset), options(2, 1)).unwrap().state().clone();
    let resume =
        |dataset: &Arc<Dataset>, options| Loader::from_state(Arc::clone(dataset), options, state.clone());
    assert!(resume(&dataset, options(1, 2)).is_ok());
    for (dataset, options, part) in [
        (&dataset, options(3, 1), "batch_size"),
        (&dataset, LoaderOptions { seed: 1, ..options(2, 1) }, "train.seed"),
        (&dataset, LoaderOptions { packing: true, ..options(2, 1) }, "data.packing"),
        (&numbered(&[4, 5]), options(2, 1), "the training data"),
    ] {
        let error = resume(dataset, options).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let mut beyond = state.clone();
    beyond.window = 9;
    assert!(Loader::from_state(Arc::clone(&dataset), options(2, 1), beyond).is_err());
    assert!(Loader::new(dataset, options(0, 1)).is_err());
}

#[test]
fn evaluation_uses_every_row_once() {
    let dataset = numbered(&[9, 4, 30, 7, 2]);
    let batches: Vec<Batch> = evaluation_batches(&dataset, 2, 32).collect();
    let mut rows: Vec<usize> =
        batches.iter().flat_map(|batch| batch.sources.iter().map(|source| source.row)).collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3, 4, 5]);
    assert_eq!(batches.iter().map(|batch| batch.tokens).sum::<usize>(), dataset.tokens());
}

#[test]
fn prefetching_changes_nothing_and_stops_cleanly() {
    let dataset = numbered(&[3, 9, 4, 12, 5, 31, 7]);
    let mut plain = Loader::new(Arc::clone(&dataset), options(2, 1)).unwrap();
    let mut ahead = PrefetchingLoader::new(Loader::new(dataset, options(2, 1)).unwrap(), 3).unwrap();
    assert_eq!(ahead.windows_per_epoch(), 4);
    for _ in 0..9 {
        let window = ahead.next_window_blocking().unwrap();
        assert_eq!(window, plain.next_window().unwrap());
        assert_eq!(ahead.state(), plain.state());
    }
    drop(ahead);
}

#[tokio::test]
async fn prefetching_serves_asynchronous_code() {
    let loader = Loader::new(numbered(&[3, 9]), options(1, 1)).unwrap();
    let mut ahead = PrefetchingLoader::new(loader, 1).unwrap();
    let first = ahead.next_window().await.unwrap();
    assert_eq!((first.epoch, ahead.state().window), (0.5, 1));
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
