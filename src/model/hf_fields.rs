//! Typed access to the fields of a `config.json`, with errors that name the field.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A JSON object whose fields are read by name; null counts as absent.
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        name: &str,
        kind: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(Error::data(format!("{name} is {value}, expected {kind}"))),
        }
    }

    pub fn size(&self, name: &str) -> Result<Option<usize>> {
        self.typed(name, "a whole number", |value| value.as_u64().and_then(|value| value.try_into().ok()))
    }

    pub fn sizes(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let size = |value: &Value| value.as_u64().and_then(|value| value.try_into().ok());
        self.typed(name, "a list of whole numbers", |value| value.as_array()?.iter().map(size).collect())
    }

    pub fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>> {
        self.typed(name, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.typed(name, "a string", Value::as_str)
    }

    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.typed(name, "an object", Value::as_object)
    }

    /// Token ids: a number or a list of numbers.
    pub fn token_ids(&self, name: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = self.typed(name, "a token id or a list of them", |value| match value {
            Value::Array(items) => items.iter().map(id).collect(),
            // Some exports write -1 for "none".
            Value::Number(number) if number.as_i64() == Some(-1) => Some(Vec::new()),
            one => id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

/// The value of a field that has no default.
pub(super) fn required<T>(name: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::data(format!("the field {name} is missing")))
}
