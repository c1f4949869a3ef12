//! The kinds of rows, recognized from the keys of each row.

use super::message::{Message, json_type, key_list};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Most turns in one conversation. Each trained turn renders the conversation up to it, so that the work grows with
/// the square of this.
const MAX_MESSAGES: usize = 2_000;

/// One row of a data set, before tokenization.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A conversation; `prompt_length` messages at its start are never trained.
    Messages { messages: Vec<Message>, tools: Option<Value>, prompt_length: usize },
    /// Plain text, continued by plain text.
    Completion { prompt: String, completion: String },
    /// Plain text, all of it trained.
    Text(String),
    /// Token ids that need no tokenizer, with a mark on each trained token.
    Tokenized { input_ids: Vec<u32>, supervised: Vec<bool> },
}

/// How a kind of row is recognized and read.
struct Kind {
    /// Keys that all must be present and not null.
    keys: &'static [&'static str],
    /// What an error message shows.
    shape: &'static str,
    parse: fn(&mut Map<String, Value>) -> Result<Row>,
}

const KINDS: [Kind; 4] = [
    Kind { keys: &["messages"], shape: r#"{"messages": [{"role", "content"}]}"#, parse: parse_messages },
    Kind { keys: &["prompt", "completion"], shape: r#"{"prompt", "completion"}"#, parse: parse_completion },
    Kind { keys: &["text"], shape: r#"{"text"}"#, parse: parse_text },
    Kind { keys: &["input_ids"], shape: r#"{"input_ids", "labels"?}"#, parse: parse_tokenized },
];

impl Row {
    /// Reads a row of any kind. Keys that belong to no kind are ignored as long as one kind matches.
    ///
    /// # Errors
    /// No kind matches, several do, or a value has the wrong type; the caller adds the row's place.
    pub fn from_json(mut fields: Map<String, Value>) -> Result<Self> {
        let present = |key: &&str| fields.get(*key).is_some_and(|value| !value.is_null());
        let matching: Vec<&Kind> = KINDS.iter().filter(|kind| kind.keys.iter().all(present)).collect();
        match matching[..] {
            [kind] => (kind.parse)(&mut fields),
            [] => {
                let shapes: Vec<&str> = KINDS.iter().map(|kind| kind.shape).collect();
                Err(Error::data(format!("a row of no known kind: it has {}", key_list(&fields)))
                    .hint(format!("rows are one of {}", shapes.join(", "))))
            }
            _ => {
                let shapes: Vec<&str> = matching.iter().map(|kind| kind.shape).collect();
                Err(Error::data(format!("the row could be any of {}", shapes.join(", ")))
                    .hint("remove the keys that are not meant for training"))
            }
        }
    }
}

fn parse_messages(fields: &mut Map<String, Value>) -> Result<Row> {
    let messages = take_messages(fields, "messages")?;
    if messages.is_empty() {
        return Err(Error::data("\"messages\" is empty").hint("remove the row, or give it at least one turn"));
    }
    check_message_count(&messages)?;
    Ok(Row::Messages { messages, tools: take_tools(fields), prompt_length: 0 })
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
                return Err(Error::data("\"completion\" is empty"));
            }
            check_message_count(&messages)?;
            Ok(Row::Messages { messages, tools: take_tools(fields), prompt_length })
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
    match fields.shift_remove("text") {
        Some(Value::String(text)) => Ok(Row::Text(text)),
        other => Err(Error::data(format!(
            "\"text\" must be a string, not {}",
            other.as_ref().map_or("missing", json_type)
        ))),
    }
}

/// Labels follow Hugging Face: as long as the ids, equal to them where trained and -100 where not.
fn parse_tokenized(fields: &mut Map<String, Value>) -> Result<Row> {
    let ids = integers(fields, "input_ids")?.unwrap_or_default();
    let mut input_ids = Vec::with_capacity(ids.len());
    for (index, &id) in ids.iter().enumerate() {
        // u32::MAX marks positions without a target in a batch.
        let id = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
        input_ids.push(
            id.ok_or_else(|| Error::data(format!("input_ids[{index}] is {}, not a token id", ids[index])))?,
        );
    }
    let Some(labels) = integers(fields, "labels")? else {
        return Ok(Row::Tokenized { supervised: vec![true; input_ids.len()], input_ids });
    };
    if labels.len() != input_ids.len() {
        return Err(Error::data(format!("{} labels for {} input_ids", labels.len(), input_ids.len())));
    }
    let mut supervised = Vec::with_capacity(labels.len());
    for (index, (&label, &id)) in labels.iter().zip(&input_ids).enumerate() {
        if label != -100 && label != i64::from(id) {
            return Err(Error::data(format!("labels[{index}] is {label}, but input_ids[{index}] is {id}"))
                .hint("labels repeat the input ids, unshifted, with -100 where a token is not trained"));
        }
        supervised.push(label != -100);
    }
    Ok(Row::Tokenized { input_ids, supervised })
}

/// A list of integers, `None` where the key is missing or null.
fn integers(fields: &Map<String, Value>, key: &str) -> Result<Option<Vec<i64>>> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                item.as_i64().ok_or_else(|| {
                    Error::data(format!("{key}[{index}] is {}, not an integer", json_type(item)))
                })
            })
            .collect::<Result<Vec<i64>>>()
            .map(Some),
        Some(other) => {
            Err(Error::data(format!("\"{key}\" must be a list of integers, not {}", json_type(other))))
        }
    }
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
        other => Err(Error::data(format!(
            "\"{key}\" must be a list of messages, not {}",
            other.as_ref().map_or("missing", json_type)
        ))),
    }
}

fn take_tools(fields: &mut Map<String, Value>) -> Option<Value> {
    fields.shift_remove("tools").filter(|tools| tools.as_array().is_some_and(|list| !list.is_empty()))
}

fn check_message_count(messages: &[Message]) -> Result<()> {
    if messages.len() > MAX_MESSAGES {
        return Err(Error::data(format!(
            "the conversation has {} messages, more than {MAX_MESSAGES}",
            messages.len()
        ))
        .hint("split the conversation into several rows"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Row> {
        Row::from_json(value.as_object().unwrap().clone())
    }

    #[test]
    fn kinds_are_recognized_by_their_keys() {
        let turn = json!({"role": "user", "content": "q"});
        let answer = json!({"role": "assistant", "content": "a"});
        let conversation = parse(json!({"id": 7, "prompt": "q", "messages": [turn, answer]})).unwrap();
        assert!(matches!(conversation, Row::Messages { prompt_length: 0, tools: None, .. }));
        let completion = parse(json!({"prompt": [turn], "completion": [answer], "tools": [{}]})).unwrap();
        assert!(matches!(completion, Row::Messages { prompt_length: 1, tools: Some(_), .. }));
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
