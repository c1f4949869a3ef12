//! Conversation messages, as data sets and chat templates know them.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Every field that the chat template sees, in the row's order: `role`, `content`, `tool_calls`, `name` ...
    fields: Map<String, Value>,
    /// The row's own `"train"` for this turn, where it has one.
    pub train: Option<bool>,
}

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let mut fields = Map::new();
        fields.insert("role".to_owned(), Value::String(role.into()));
        fields.insert("content".to_owned(), Value::String(content.into()));
        Self { fields, train: None }
    }

    /// Checks a row's message and brings its content and tool calls into the form that templates expect.
    ///
    /// # Errors
    /// Names what is missing or has the wrong type; the caller adds the row.
    pub fn from_json(value: Value) -> Result<Self> {
        let Value::Object(mut fields) = value else {
            return Err(Error::data(format!("a message must be an object, not {}", json_type(&value)))
                .hint(r#"write {"role": "user", "content": "..."}"#));
        };
        let train = match fields.shift_remove("train") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(train)) => Some(train),
            Some(other) => {
                return Err(Error::data(format!(
                    "\"train\" must be true or false, not {}",
                    json_type(&other)
                )));
            }
        };
        match fields.get("role") {
            Some(Value::String(role)) if !role.is_empty() => {}
            Some(other) => {
                return Err(Error::data(format!(
                    "\"role\" must be a non-empty string, not {}",
                    json_type(other)
                )));
            }
            None => {
                return Err(Error::data(format!("a message has no \"role\", only {}", key_list(&fields))));
            }
        }
        normalize_content(&mut fields)?;
        parse_tool_arguments(&mut fields);
        Ok(Self { fields, train })
    }

    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The text content; empty for a turn that only calls tools.
    pub fn content(&self) -> &str {
        self.fields.get("content").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn is_assistant(&self) -> bool {
        self.role() == "assistant"
    }

    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

/// Makes `content` a string: a list of text parts is joined, and null is allowed next to tool calls only.
fn normalize_content(fields: &mut Map<String, Value>) -> Result<()> {
    let calls_tools =
        fields.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
    let text = match fields.get("content") {
        Some(Value::String(_)) => return Ok(()),
        Some(Value::Array(parts)) => join_text_parts(parts)?,
        None | Some(Value::Null) if calls_tools => String::new(),
        None | Some(Value::Null) => return Err(Error::data("a message has no \"content\"")),
        Some(other) => {
            return Err(Error::data(format!("\"content\" must be a string, not {}", json_type(other))));
        }
    };
    fields.insert("content".to_owned(), Value::String(text));
    Ok(())
}

fn join_text_parts(parts: &[Value]) -> Result<String> {
    let mut text = String::new();
    for part in parts {
        match part.get("text").and_then(Value::as_str) {
            Some(piece) => text.push_str(piece),
            None => {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or_else(|| json_type(part));
                return Err(Error::data(format!(
                    "\"content\" has a part of type {kind}; only text can be trained"
                )));
            }
        }
    }
    Ok(text)
}

/// Function arguments often come as a string that holds JSON. Templates print them with `tojson`, which would quote
/// that string a second time, so it is parsed here.
fn parse_tool_arguments(fields: &mut Map<String, Value>) {
    let Some(Value::Array(calls)) = fields.get_mut("tool_calls") else { return };
    for call in calls {
        let holder = if call.get("function").is_some() { call.get_mut("function") } else { Some(call) };
        let Some(arguments) = holder.and_then(|function| function.get_mut("arguments")) else { continue };
        if let Value::String(text) = arguments
            && let Ok(parsed @ Value::Object(_)) = serde_json::from_str(text)
        {
            *arguments = parsed;
        }
    }
}

/// The JSON name of a value's type, for error messages.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The keys of an object for an error message, at most eight of them.
pub(crate) fn key_list(fields: &Map<String, Value>) -> String {
    const SHOWN: usize = 8;
    if fields.is_empty() {
        return "no keys".to_owned();
    }
    let mut keys: Vec<String> = fields
        .keys()
        .take(SHOWN)
        .map(|key| format!("\"{}\"", key.chars().take(40).collect::<String>()))
        .collect();
    if fields.len() > SHOWN {
        keys.push(format!("{} more", fields.len() - SHOWN));
    }
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn joins_text_parts_and_takes_out_train() {
        let message = Message::from_json(json!({
            "role": "assistant", "train": false,
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        }))
        .unwrap();
        assert_eq!((message.content(), message.train), ("ab", Some(false)));
        assert!(!message.fields().contains_key("train"));
    }

    #[test]
    fn parses_tool_arguments_given_as_text() {
        let call = json!({"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}});
        let message = Message::from_json(json!({"role": "assistant", "tool_calls": [call]})).unwrap();
        assert_eq!(message.fields()["tool_calls"][0]["function"]["arguments"], json!({"x": 1}));
        assert_eq!(message.content(), "");
    }

    #[test]
    fn refuses_what_cannot_be_trained() {
        for (value, part) in [
            (json!("hi"), "must be an object"),
            (json!({"content": "x"}), "has no \"role\""),
            (json!({"role": 3, "content": "x"}), "\"role\" must be"),
            (json!({"role": "user"}), "has no \"content\""),
            (json!({"role": "user", "content": 3}), "not a number"),
            (json!({"role": "user", "content": [{"type": "image"}]}), "type image"),
            (json!({"role": "user", "content": "x", "train": "no"}), "\"train\" must be"),
        ] {
            let error = Message::from_json(value).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
