//! Rows of token ids.

use super::Row;
use crate::data::message::json_type;
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Labels follow Hugging Face: as long as the ids, equal to them where trained and -100 where not.
pub(super) fn parse(fields: &mut Map<String, Value>) -> Result<Row> {
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
