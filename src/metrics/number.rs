//! JSON has no NaN and no infinity: `null` stands for both.

use serde::{Deserialize, Deserializer, Serializer};

/// What is read where a number is missing that has no neutral value.
pub fn nan() -> f64 {
    f64::NAN
}

/// Writes `null` for what JSON cannot say.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_none() }
}

/// Reads `null` as NaN.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
