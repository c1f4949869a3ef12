//! Alpaca rows: an instruction, perhaps with an input, and the output.

use super::{ChatRow, Row, optional_text, required_text, wrong_type};
use crate::data::message::Message;
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// `{"instruction", "input"?, "output", "system"?, "history"?: [[question, answer]]}` as a conversation. The input
/// follows the instruction on a line of its own.
pub(super) fn parse(fields: &mut Map<String, Value>) -> Result<Row> {
    let mut messages = Vec::new();
    if let Some(system) = optional_text(fields, "system")? {
        messages.push(Message::new("system", system));
    }
    match fields.get("history") {
        None | Some(Value::Null) => {}
        Some(Value::Array(turns)) => {
            for (index, turn) in turns.iter().enumerate() {
                let (question, answer) = past_turn(turn).ok_or_else(|| {
                    Error::data(format!("history[{index}] must be a list of a question and its answer"))
                        .hint(r#"write "history": [["question", "answer"], ...]"#)
                })?;
                messages.push(Message::new("user", question));
                messages.push(Message::new("assistant", answer));
            }
        }
        other => return Err(wrong_type("history", "a list", other)),
    }
    let mut question = required_text(fields, "instruction")?;
    if let Some(input) = optional_text(fields, "input")? {
        if !question.is_empty() {
            question.push('\n');
        }
        question.push_str(&input);
    }
    messages.push(Message::new("user", question));
    let completion_start = messages.len();
    messages.push(Message::new("assistant", required_text(fields, "output")?));
    let row = ChatRow::new(messages, None, 0)?;
    Ok(Row::Chat(ChatRow { completion_start, ..row }))
}

fn past_turn(turn: &Value) -> Option<(&str, &str)> {
    match turn.as_array()?.as_slice() {
        [question, answer] => Some((question.as_str()?, answer.as_str()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turns(value: Value) -> Result<(Vec<(String, String)>, usize)> {
        let Row::Chat(row) = parse(&mut value.as_object().unwrap().clone())? else { unreachable!() };
        let turns = row.messages.iter().map(|turn| (turn.role().to_owned(), turn.content().to_owned()));
        Ok((turns.collect(), row.completion_start))
    }

    #[test]
    fn fields_become_turns() {
        let pair = |role: &str, text: &str| (role.to_owned(), text.to_owned());
        let row = json!({
            "instruction": "Add.", "input": "1 1", "output": "2", "system": "Calm.", "history": [["q", "a"]],
        });
        let expected = [
            pair("system", "Calm."),
            pair("user", "q"),
            pair("assistant", "a"),
            pair("user", "Add.\n1 1"),
            pair("assistant", "2"),
        ];
        assert_eq!(turns(row).unwrap(), (expected.to_vec(), 4));
        let short = json!({"instruction": "Hi", "input": "", "output": "Ho", "history": []});
        assert_eq!(turns(short).unwrap(), (vec![pair("user", "Hi"), pair("assistant", "Ho")], 1));
    }

    #[test]
    fn wrong_types_are_named() {
        for (value, part) in [
            (json!({"instruction": "a", "output": 3}), "\"output\" must be a string, not a number"),
            (
                json!({"instruction": "a", "output": "b", "input": []}),
                "\"input\" must be a string, not a list",
            ),
            (json!({"instruction": "a", "output": "b", "history": "x"}), "\"history\" must be a list"),
            (json!({"instruction": "a", "output": "b", "history": [["q"]]}), "history[0] must be"),
        ] {
            let error = turns(value).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
