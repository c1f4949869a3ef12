//! The kinds of rows, recognized from the keys of each row.

mod alpaca;
mod sharegpt;
mod tokenized;

use super::message::{Message, json_type, key_list};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most turns in one conversation. Each trained turn renders the conversation up to it, so that the work grows with
/// the square of this.
const MAX_MESSAGES: usize = 2_000;

/// One row of a data set, before tokenization.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A conversation.
    Chat(ChatRow),
    /// Plain text, continued by plain text.
    Completion { prompt: String, completion: String },
    /// Plain text, all of it trained.
    Text(String),
    /// Token ids that need no tokenizer, with a mark on each trained token.
    Tokenized { input_ids: Vec<u32>, supervised: Vec<bool> },
}

/// A conversation, whatever the kind of row that it was written as.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRow {
    pub messages: Vec<Message>,
    /// A list that is not empty.
    pub tools: Option<Value>,
    /// Messages at the start that are not trained, unless they say so themselves.
    pub prompt_length: usize,
    /// The same for `train_on = "completion"`; at least `prompt_length`.
    pub completion_start: usize,
}

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    Messages,
    Prompt,
    Text,
    Alpaca,
    Sharegpt,
    Tokenized,
}

/// How a kind of row is recognized and read.
struct Shape {
    kind: RowKind,
    name: &'static str,
    /// Keys that all must be present and not null.
    keys: &'static [&'static str],
    /// What an error message shows.
    text: &'static str,
    parse: fn(&mut Map<String, Value>) -> Result<Row>,
}

const SHAPES: [Shape; 6] = [
    Shape {
        kind: RowKind::Messages,
        name: "messages",
        keys: &["messages"],
        text: r#"{"messages": [{"role", "content"}]}"#,
        parse: parse_messages,
    },
    Shape {
        kind: RowKind::Prompt,
        name: "prompt/completion",
        keys: &["prompt", "completion"],
        text: r#"{"prompt", "completion"}"#,
        parse: parse_completion,
    },
    Shape { kind: RowKind::Text, name: "text", keys: &["text"], text: r#"{"text"}"#, parse: parse_text },
    Shape {
        kind: RowKind::Alpaca,
        name: "alpaca",
        keys: &["instruction", "output"],
        text: r#"{"instruction", "input"?, "output"}"#,
        parse: alpaca::parse,
    },
    Shape {
        kind: RowKind::Sharegpt,
        name: "sharegpt",
        keys: &["conversations"],
        text: r#"{"conversations": [{"from", "value"}]}"#,
        parse: sharegpt::parse,
    },
    Shape {
        kind: RowKind::Tokenized,
        name: "tokenized",
        keys: &["input_ids"],
        text: r#"{"input_ids", "labels"?}"#,
        parse: tokenized::parse,
    },
];

impl RowKind {
    /// Every kind, in the order of their values.
    pub const ALL: [Self; 6] =
        [Self::Messages, Self::Prompt, Self::Text, Self::Alpaca, Self::Sharegpt, Self::Tokenized];

    /// What the documentation calls it.
    pub fn name(self) -> &'static str {
        SHAPES.iter().find(|shape| shape.kind == self).map_or("", |shape| shape.name)
    }
}

impl Row {
    /// Reads a row of any kind. Keys that belong to no kind are ignored as long as one kind matches.
    ///
    /// # Errors
    /// No kind matches, several do, or a value has the wrong type; the caller adds the row's place.
    pub fn from_json(mut fields: Map<String, Value>) -> Result<(RowKind, Self)> {
        let shape = recognize(&fields)?;
        Ok((shape.kind, (shape.parse)(&mut fields)?))
    }
}

fn recognize(fields: &Map<String, Value>) -> Result<&'static Shape> {
    let present = |key: &&str| fields.get(*key).is_some_and(|value| !value.is_null());
    let matching: Vec<&Shape> = SHAPES.iter().filter(|shape| shape.keys.iter().all(present)).collect();
    let texts = |shapes: &[&Shape]| shapes.iter().map(|shape| shape.text).collect::<Vec<_>>().join(", ");
    match matching[..] {
        [shape] => Ok(shape),
        [] if ["chosen", "rejected"].iter().all(present) => Err(Error::data(
            "a preference row (\"chosen\" and \"rejected\"), and preference training is not supported",
        )
        .hint("to train on the preferred answers, rename \"chosen\" to \"completion\", or to \"messages\" where it holds whole conversations")),
        [] => Err(Error::data(format!("a row of no known kind: it has {}", key_list(fields)))
            .hint(format!("rows are one of {}", texts(&SHAPES.iter().collect::<Vec<_>>())))),
        _ => Err(Error::data(format!("the row could be any of {}", texts(&matching)))
            .hint("remove the keys that are not meant for training")),
    }
}

impl ChatRow {
    /// Checks the number of messages, and that there is one to train.
    fn new(messages: Vec<Message>, tools: Option<Value>, prompt_length: usize) -> Result<Self> {
        if messages.len() > MAX_MESSAGES {
            return Err(Error::data(format!(
                "the conversation has {} messages, more than {MAX_MESSAGES}",
                messages.len()
            ))
            .hint("split the conversation into several rows"));
        }
        Ok(Self { messages, tools, prompt_length, completion_start: prompt_length })
    }
}

fn parse_messages(fields: &mut Map<String, Value>) -> Result<Row> {
    let messages = take_messages(fields, "messages")?;
    if messages.is_empty() {
        return Err(Error::data("\"messages\" is empty").hint("remove the row, or give it at least one turn"));
    }
    ChatRow::new(messages, take_tools(fields)?, 0).map(Row::Chat)
}

fn parse_completion(fields: &mut Map<String, Value>) -> Result<Row> {
    match (fields.get("prompt"), fields.get("completion")) {
        (Some(Value::String(prompt)), Some(Value::String(completion))) => {
            Ok(Row::Completion { prompt: prompt.clone(), completion: completion.clone() })
        }
        (Some(Value::Array(_)), Some(Value::Array(_))) => {
            let mut messages = take_messages(fields, "prompt")?;
            let prompt_length = messages.len();
            messages.extend(take_messages(fields, "completion")?);
            if messages.len() == prompt_length {
                return Err(Error::data("\"completion\" is empty")
                    .hint("remove the row, or give it the turns to train on"));
            }
            ChatRow::new(messages, take_tools(fields)?, prompt_length).map(Row::Chat)
        }
        (prompt, completion) => {
            let name = |value: Option<&Value>| value.map_or("missing", json_type);
            Err(Error::data(format!(
                "\"prompt\" is {} and \"completion\" is {}; both must be strings, or both lists of messages",
                name(prompt),
                name(completion)
            )))
        }
    }
}

fn parse_text(fields: &mut Map<String, Value>) -> Result<Row> {
    required_text(fields, "text").map(Row::Text)
}

fn take_messages(fields: &mut Map<String, Value>, key: &str) -> Result<Vec<Message>> {
    match fields.shift_remove(key) {
        Some(Value::Array(items)) => {
            let messages = items.into_iter().enumerate();
            messages
                .map(|(index, item)| {
                    Message::from_json(item).map_err(|error| error.context(format!("{key}[{index}]")))
                })
                .collect()
        }
        other => Err(wrong_type(key, "a list of messages", other.as_ref())),
    }
}

/// Tools are a list, or text that holds one as JSON.
fn take_tools(fields: &mut Map<String, Value>) -> Result<Option<Value>> {
    let tools = match fields.shift_remove("tools") {
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(&text)
            .map_err(|error| Error::data(format!("\"tools\" is text that is not JSON: {error}")))?,
        None => return Ok(None),
        Some(other) => other,
    };
    match tools {
        Value::Null => Ok(None),
        Value::Array(list) if list.is_empty() => Ok(None),
        Value::Array(_) => Ok(Some(tools)),
        other => Err(Error::data(format!("\"tools\" must be a list, not {}", json_type(&other)))
            .hint("write one object for each function that the model may call")),
    }
}

/// Text under a key; `None` where it is missing, null or empty.
fn optional_text(fields: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong_type(key, "a string", Some(other))),
    }
}

/// Text under a key that must be there.
fn required_text(fields: &Map<String, Value>, key: &str) -> Result<String> {
    match fields.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(wrong_type(key, "a string", other)),
    }
}

fn wrong_type(key: &str, expected: &str, found: Option<&Value>) -> Error {
    let found = found.map_or("missing", json_type);
    Error::data(format!("\"{key}\" must be {expected}, not {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Row> {
        Row::from_json(value.as_object().unwrap().clone()).map(|(_, row)| row)
    }

    #[test]
    fn kinds_are_recognized_by_their_keys() {
        let turn = json!({"role": "user", "content": "q"});
        let answer = json!({"role": "assistant", "content": "a"});
        let conversation = parse(json!({"id": 7, "prompt": "q", "messages": [turn, answer]})).unwrap();
        assert!(matches!(conversation, Row::Chat(ChatRow { prompt_length: 0, tools: None, .. })));
        let completion = parse(json!({"prompt": [turn], "completion": [answer], "tools": [{}]})).unwrap();
        assert!(matches!(completion, Row::Chat(ChatRow { prompt_length: 1, tools: Some(_), .. })));
        assert_eq!(parse(json!({"text": "x", "labels": null})).unwrap(), Row::Text("x".into()));
        assert_eq!(
            parse(json!({"input_ids": [3, 4], "labels": [-100, 4]})).unwrap(),
            Row::Tokenized { input_ids: vec![3, 4], supervised: vec![false, true] }
        );
    }

    #[test]
    fn mistakes_are_explained() {
        for (value, part) in [
            (json!({"instruction": "x"}), "no known kind: it has \"instruction\""),
            (json!({}), "it has no keys"),
            (json!({"text": "x", "prompt": "p", "completion": "c"}), "could be any of"),
            (json!({"messages": []}), "\"messages\" is empty"),
            (json!({"messages": "x"}), "must be a list of messages"),
            (json!({"messages": [{"role": "user"}]}), "messages[0]: a message has no \"content\""),
            (json!({"prompt": "x", "completion": []}), "\"prompt\" is a string and \"completion\" is a list"),
            (json!({"prompt": [], "completion": []}), "\"completion\" is empty"),
            (json!({"text": 3}), "not a number"),
            (json!({"input_ids": [1, -1]}), "input_ids[1] is -1"),
            (json!({"input_ids": [1.5]}), "not an integer"),
            (json!({"input_ids": [1], "labels": [1, 2]}), "2 labels for 1 input_ids"),
            (json!({"input_ids": [1], "labels": [2]}), "labels[0] is 2, but"),
            (json!({"input_ids": [u32::MAX]}), "not a token id"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn endless_conversations_are_refused() {
        let turns = vec![json!({"role": "user", "content": ""}); MAX_MESSAGES + 1];
        assert!(parse(json!({"messages": turns})).unwrap_err().to_string().contains("2001 messages"));
    }
}
