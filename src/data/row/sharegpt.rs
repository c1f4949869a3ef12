//! ShareGPT rows: conversations with `from` and `value`.

use super::{ChatRow, Row, optional_text, take_tools, wrong_type};
use crate::data::message::{Message, json_type, key_list};
use crate::error::{Error, Result, ResultExt};
use serde_json::{Map, Value, json};

/// The names that `from` takes, and the roles that they stand for. A function call is an assistant's turn.
const ROLES: [(&str, &str); 18] = [
    ("human", "user"),
    ("user", "user"),
    ("prompter", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("model", "assistant"),
    ("chatgpt", "assistant"),
    ("bot", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
    ("function-response", "tool"),
    ("function_call", CALL),
    ("function-call", CALL),
    ("tool_call", CALL),
];

const CALL: &str = "function call";

/// `{"conversations": [{"from", "value"}], "system"?, "tools"?}` as a conversation; turns may also have `role` and
/// `content`.
pub(super) fn parse(fields: &mut Map<String, Value>) -> Result<Row> {
    let turns = match fields.shift_remove("conversations") {
        Some(Value::Array(turns)) => turns,
        other => return Err(wrong_type("conversations", "a list of turns", other.as_ref())),
    };
    if turns.is_empty() {
        return Err(
            Error::data("\"conversations\" is empty").hint("remove the row, or give it at least one turn")
        );
    }
    let mut messages = Vec::with_capacity(turns.len() + 1);
    if let Some(system) = optional_text(fields, "system")? {
        messages.push(Message::new("system", system));
    }
    for (index, turn) in turns.into_iter().enumerate() {
        messages.push(message(turn).context(|| format!("conversations[{index}]"))?);
    }
    ChatRow::new(messages, take_tools(fields)?, 0).map(Row::Chat)
}

fn message(turn: Value) -> Result<Message> {
    let Value::Object(mut turn) = turn else {
        return Err(Error::data(format!("a turn must be an object, not {}", json_type(&turn)))
            .hint(r#"write {"from": "human", "value": "..."}"#));
    };
    let from = match turn.shift_remove("from") {
        Some(Value::String(from)) => from,
        None if turn.contains_key("role") => return Message::from_json(Value::Object(turn)),
        None => return Err(Error::data(format!("a turn has no \"from\", only {}", key_list(&turn)))),
        other => return Err(wrong_type("from", "a string", other.as_ref())),
    };
    let known = ROLES.iter().find(|(name, _)| name.eq_ignore_ascii_case(from.trim()));
    let role = known.map(|(_, role)| *role).ok_or_else(|| {
        let from: String = from.chars().take(40).collect();
        Error::data(format!("\"from\" is \"{from}\", which stands for no role"))
            .hint("use human, gpt, system, function_call or observation, or write the row with \"messages\"")
    })?;
    let value = turn.shift_remove("value").unwrap_or(Value::Null);
    if role == CALL {
        turn.insert("role".to_owned(), json!("assistant"));
        turn.insert("content".to_owned(), json!(""));
        turn.insert("tool_calls".to_owned(), calls(value)?);
    } else {
        if value.is_null() {
            return Err(Error::data("a turn has no \"value\""));
        }
        turn.insert("role".to_owned(), json!(role));
        turn.insert("content".to_owned(), value);
    }
    Message::from_json(Value::Object(turn))
}

/// One call or a list of them, often as text: `{"name": "f", "arguments": {..}}`, in the form that templates expect.
fn calls(value: Value) -> Result<Value> {
    let parsed = match value {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| Error::data(format!("the function call is not JSON: {error}")))
            .map_err(|error| {
                error.hint(r#"write {"name": "f", "arguments": {"x": 1}} as the turn's value"#)
            })?,
        other => other,
    };
    let calls = if let Value::Array(calls) = parsed { calls } else { vec![parsed] };
    let wrapped = calls.into_iter().map(|call| {
        if call.get("function").is_some() {
            return Ok(call);
        }
        match call.get("name") {
            Some(Value::String(_)) => Ok(json!({"type": "function", "function": call})),
            _ => Err(Error::data("a function call has no \"name\"")
                .hint(r#"write {"name": "f", "arguments": {"x": 1}} as the turn's value"#)),
        }
    });
    wrapped.collect::<Result<Vec<Value>>>().map(Value::Array)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<ChatRow> {
        let Row::Chat(row) = parse(&mut value.as_object().unwrap().clone())? else { unreachable!() };
        Ok(row)
    }

    #[test]
    fn turns_calls_and_tools_are_translated() {
        let row = read(json!({
            "system": "S", "tools": "[{\"name\": \"f\"}]",
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
                {"from": "observation", "value": "7"},
                {"from": "GPT", "value": "seven", "train": false},
                {"role": "user", "content": "thanks"},
            ],
        }))
        .unwrap();
        let roles: Vec<&str> = row.messages.iter().map(Message::role).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "assistant", "user"]);
        assert_eq!(
            row.messages[2].fields()["tool_calls"][0]["function"],
            json!({"name": "f", "arguments": {"x": 1}})
        );
        assert_eq!((row.messages[4].train, row.tools), (Some(false), Some(json!([{"name": "f"}]))));
    }

    #[test]
    fn what_cannot_be_translated_is_named() {
        let turn = |turn: Value| json!({"conversations": [turn]});
        for (value, part) in [
            (json!({"conversations": []}), "\"conversations\" is empty"),
            (json!({"conversations": {}}), "must be a list of turns, not an object"),
            (turn(json!("hi")), "conversations[0]: a turn must be an object"),
            (turn(json!({"value": "x"})), "has no \"from\", only \"value\""),
            (turn(json!({"from": "wizard", "value": "x"})), "\"from\" is \"wizard\""),
            (turn(json!({"from": "gpt"})), "has no \"value\""),
            (turn(json!({"from": "function_call", "value": "f(1)"})), "the function call is not JSON"),
            (turn(json!({"from": "function_call", "value": "{}"})), "has no \"name\""),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let tools = json!({"conversations": [{"from": "gpt", "value": "x"}], "tools": "no json"});
        assert!(read(tools).unwrap_err().to_string().contains("\"tools\" is text that is not JSON"));
    }
}
