//! Kinds of rows, what of them is trained, and rows that cannot be: through the public interface.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::config::TrainOn;
use serde_json::json;
use support::rows::{conversation, load, load_with, marked, marked_row, section, tokenizer};

#[test]
fn every_kind_of_row_may_stand_in_one_file() {
    let tokenizer = tokenizer(None);
    let question = json!({"role": "user", "content": "q"});
    let rows = [
        conversation(),
        json!({"instruction": "Add.", "input": "1 1", "output": "2", "history": [["q", "a"]]}),
        json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "S"}),
        json!({"prompt": "p", "completion": "c"}),
        json!({"prompt": [question], "completion": [{"role": "assistant", "content": "a"}]}),
        json!({"text": "t"}),
        json!({"input_ids": [5, 6]}),
    ];
    let dataset = load(&rows, &tokenizer, TrainOn::Assistant).unwrap();
    assert_eq!(dataset.counts().kinds, [1, 2, 1, 1, 1, 1]);
    let marked = |index: usize| marked(&dataset.examples()[index], &tokenizer);
    let turn = |role: &str, text: &str| format!("<|im_start|>{role}\n{text}<|im_end|>\n");
    let answer = |text: &str| format!("<|im_start|>assistant\n[{text}<|im_end|>]\n");
    let alpaca = [turn("user", "q"), answer("a"), turn("user", "Add.\n1 1"), answer("2")].concat();
    assert_eq!(marked(1), alpaca);
    assert_eq!(marked(2), [turn("system", "S"), turn("user", "q"), answer("a")].concat());
    let completion = marked_row(rows[1].clone(), &tokenizer, TrainOn::Completion);
    assert_eq!(completion, alpaca.replace("[a<|im_end|>]", "a<|im_end|>"));
    let prompt = marked_row(rows[3].clone(), &tokenizer, TrainOn::Completion);
    assert_eq!(prompt, "p[c<|im_end|>]");
    let all_turns = marked_row(conversation(), &tokenizer, TrainOn::Completion);
    assert_eq!(all_turns, marked_row(conversation(), &tokenizer, TrainOn::Assistant));
}

#[test]
fn tools_calls_and_reasoning_reach_the_template() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("tools.jinja");
    let source = "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ m.role }}: \
                  {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}\
                  {% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }})\
                  {% endfor %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    std::fs::write(&template, source).unwrap();
    let tokenizer = tokenizer(None).with_template_file(&template).unwrap();
    // Whether the space before an answer is part of its first token is the tokenizer's business.
    let trained = |row| marked_row(row, &tokenizer, TrainOn::Assistant).replace(":[ ", ": [");
    let call = json!({"type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}});
    let row = json!({"tools": [{"name": "add"}], "messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "two", "train": false},
    ]});
    let expected = "tools: [{\"name\": \"add\"}]\nuser: q<|im_end|>assistant: [<think>hm</think>add({\"a\": 1})\
                    <|im_end|>]tool: 2<|im_end|>assistant: two<|im_end|>";
    assert_eq!(trained(row), expected);
    let shared = json!({"tools": "[{\"name\": \"add\"}]", "conversations": [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": "{\"name\": \"add\", \"arguments\": {\"a\": 1}}"},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "two"},
    ]});
    let expected = "tools: [{\"name\": \"add\"}]\nuser: q<|im_end|>assistant: [add({\"a\": 1})<|im_end|>]\
                    tool: 2<|im_end|>assistant: [two<|im_end|>]";
    assert_eq!(trained(shared), expected);
}

#[test]
fn rows_that_cannot_be_trained_are_named_with_a_cure() {
    let good = r#"{"text": "hello world"}"#;
    let tokenizer = tokenizer(Some("instruct"));
    let huge = format!("{{\"text\": \"{}\"}}", "x".repeat(10_000_000));
    for (row, part, cure) in [
        (r#"{"prompt": "p", "chosen": "c", "rejected": "r"}"#, "a preference row", "rename \"chosen\""),
        (
            r#"{"messages": [{"role": "user", "content": "a"}], "text": "t"}"#,
            "could be any of",
            "remove the keys",
        ),
        (r#"{"messages": []}"#, "\"messages\" is empty", "remove the row"),
        (r#"{"conversations": []}"#, "\"conversations\" is empty", "remove the row"),
        (
            r#"{"messages": [{"role": "assistant", "content": "x"}]}"#,
            "roles must alternate",
            "change the row",
        ),
        (
            r#"{"messages": [{"role": "wizard", "content": "x"}]}"#,
            "the chat template fails",
            "data.chat_template",
        ),
        (r#"{"text": "\ud800"}"#, "invalid JSON", "must be one of a pair"),
        ("{\"text\": \"\u{0}\"}", "invalid JSON: control character", "complete JSON object"),
        (&huge, "longer than 10 MB", "split the row"),
        (&"[".repeat(100_000), "invalid JSON: recursion limit", "complete JSON object"),
    ] {
        let text = format!("{good}\n{row}\n{good}");
        let error = load_with(&text, Some(&tokenizer), &section(TrainOn::Assistant, 64)).unwrap_err();
        assert!(error.to_string().contains("rows.jsonl:2"), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.hint_text().unwrap_or_default().contains(cure), "{error}: {:?}", error.hint_text());
    }
}

#[test]
fn an_answer_without_a_question_needs_a_template_that_prints_one() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("first.jinja");
    let source =
        "{% if messages[0].role == 'system' %}S{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    std::fs::write(&template, source).unwrap();
    let answer = json!({"messages": [{"role": "assistant", "content": "x"}]});
    let strict = tokenizer(None).with_template_file(&template).unwrap();
    let error = load(std::slice::from_ref(&answer), &strict, TrainOn::Assistant).unwrap_err();
    assert!(
        error.to_string().contains("rows.jsonl:1: messages[0]: the conversation starts with an answer"),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("start the conversation with a user turn"));
    let chatml = marked_row(answer, &tokenizer(None), TrainOn::Assistant);
    assert_eq!(chatml, "<|im_start|>assistant\n[x<|im_end|>]\n");
}

#[test]
fn templates_that_loop_or_raise_end_with_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("bad.jinja");
    let row = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
    for (source, part, cure) in [
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
            "runs too long",
            "does less",
        ),
        ("{{ raise_exception('no') }}", "fails: no (line 1", "the template decides which roles"),
        ("{{ messages[0].name.first }}", "undefined value", "corrected template"),
    ] {
        std::fs::write(&template, source).unwrap();
        let tokenizer = tokenizer(None).with_template_file(&template).unwrap();
        let error = load(std::slice::from_ref(&row), &tokenizer, TrainOn::Assistant).unwrap_err();
        assert!(error.to_string().contains("rows.jsonl:1: "), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.hint_text().unwrap().contains(cure), "{:?}", error.hint_text());
    }
}

/// What a byte-level tokenizer takes for a single word, and text whose tokens are single bytes.
#[test]
fn rows_of_megabytes_are_read_in_time() {
    let tokenizer = tokenizer(None);
    let rows = [json!({"text": "x".repeat(9_000_000)}), json!({"text": "\u{0}\u{1F98A}".repeat(400_000)})];
    let started = std::time::Instant::now();
    let dataset = load(&rows, &tokenizer, TrainOn::All).unwrap();
    assert_eq!((dataset.len(), dataset.counts().truncated), (2, 2));
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
