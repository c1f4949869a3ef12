//! A chat template of any text renders or fails; it neither panics nor runs on.
#![no_main]

use lazytune::data::{ChatTemplate, Message, SpecialTokens};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|source: &str| {
    let special = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
    let Ok(template) = ChatTemplate::new(source, &special, 1_700_000_000) else { return };
    let call = json!({
        "role": "assistant", "content": null,
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5, null, "\u{1f600}"]}}}],
    });
    let messages: Vec<Message> = [Message::new("system", "be brief"), Message::new("user", " hi\n")]
        .into_iter()
        .chain(Message::from_json(call))
        .chain([Message::new("tool", "[3]"), Message::new("assistant", "done")])
        .collect();
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let whole = template.render(&messages, Some(&tools), false);
    let prefix = template.render(&messages[..2], None, true);
    for error in [whole.err(), prefix.err()].into_iter().flatten() {
        let _ = format!("{error} {:?}", error.hint_text());
    }
});
