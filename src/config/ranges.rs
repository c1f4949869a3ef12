//! Numbers against the bounds that the schema states.

use super::document::Document;
use super::report::{Place, Problem, Problems};
use super::sections::RawConfig;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use serde_json::Value;

/// Reports every number that is not finite or outside its key's range, also inside lists and tables.
pub(super) fn check(
    raw: &RawConfig,
    document: &Document<'_>,
    vocabulary: &Vocabulary,
    problems: &mut Problems,
) -> Result<()> {
    let values = serde_json::to_value(raw).map_err(|error| Error::internal(error.to_string()))?;
    for (section, key, schema) in vocabulary.keys() {
        let Some(value) = values.get(section).and_then(|section| section.get(key)) else { continue };
        check_value(key, value, schema, document.value(section, key), problems);
        for (index, element) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(schema) = schema.get("items") {
                check_value(key, element, schema, document.element(section, key, index), problems);
            }
        }
        for (name, element) in value.as_object().into_iter().flatten() {
            if let Some(schema) = schema.get("additionalProperties") {
                let place = document.table_value(section, key, name);
                check_value(key, element, schema, place, problems);
            }
        }
    }
    Ok(())
}

fn check_value(key: &str, value: &Value, schema: &Value, place: Place, problems: &mut Problems) {
    let wrong = match value {
        // serde_json writes NaN and the infinities as null.
        Value::Null => Some("must be a finite number".to_owned()),
        Value::Number(_) => out_of_range(value, schema),
        Value::Array(list) if list.is_empty() && schema.get("minItems").is_some() => {
            Some("must not be empty".to_owned())
        }
        _ => None,
    };
    if let Some(label) = wrong {
        problems.push(Problem::new(place, format!("`{key}` is out of range")).label(label));
    }
}

/// A schema keyword, its words, and whether a number keeps to a bound.
type Bound = (&'static str, &'static str, fn(f64, f64) -> bool);

/// The range in words when the number lies outside it.
fn out_of_range(value: &Value, schema: &Value) -> Option<String> {
    let bounds: [Bound; 4] = [
        ("minimum", "at least", |value, bound| value >= bound),
        ("exclusiveMinimum", "greater than", |value, bound| value > bound),
        ("maximum", "at most", |value, bound| value <= bound),
        ("exclusiveMaximum", "less than", |value, bound| value < bound),
    ];
    let number = value.as_f64()?;
    let stated =
        || bounds.iter().filter_map(|(name, words, holds)| Some((schema.get(*name)?, *words, *holds)));
    let inside = stated().all(|(bound, _, holds)| match (value.as_u64(), bound.as_u64()) {
        // Above 2^53 a float cannot tell neighbours apart; only seeds get there, and their bound is a maximum.
        (Some(value), Some(bound)) if bound > 1 << 53 => value <= bound,
        _ => bound.as_f64().is_none_or(|bound| holds(number, bound)),
    });
    if inside {
        return None;
    }
    let words: Vec<_> = stated().map(|(bound, words, _)| format!("{words} {bound}")).collect();
    Some(format!("must be {}", words.join(" and ")))
}
