//! Value types that several sections share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One string or a list of strings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(in crate::config) enum TextOrList {
    Text(String),
    List(Vec<String>),
}

impl TextOrList {
    pub fn items(&self) -> &[String] {
        match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::List(list) => list,
        }
    }
}

/// A size in bytes, written as a whole number or as a number with a unit: `"2GiB"`, `"512 MiB"`, `"1.5GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "NumberOrText", into = "NumberOrText")]
pub(in crate::config) struct ByteSize(pub u64);

/// As [`ByteSize`], or `"off"`: no bytes at all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "NumberOrText", into = "NumberOrText")]
pub(in crate::config) struct SizeOrOff(pub u64);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a size such as \"2GiB\" or a number of bytes")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

const UNITS: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

impl TryFrom<NumberOrText> for ByteSize {
    type Error = String;

    fn try_from(value: NumberOrText) -> Result<Self, String> {
        match value {
            NumberOrText::Number(bytes) => Ok(Self(bytes)),
            NumberOrText::Text(text) => {
                parse_size(&text).map(Self).ok_or_else(|| "expected a size such as \"2GiB\"".to_owned())
            }
        }
    }
}

impl TryFrom<NumberOrText> for SizeOrOff {
    type Error = String;

    fn try_from(value: NumberOrText) -> Result<Self, String> {
        match value {
            NumberOrText::Text(text) if text.trim() == "off" => Ok(Self(0)),
            other => {
                let size = ByteSize::try_from(other);
                size.map(|size| Self(size.0)).map_err(|error| format!("{error} or \"off\""))
            }
        }
    }
}

impl From<SizeOrOff> for NumberOrText {
    fn from(size: SizeOrOff) -> Self {
        Self::Text(if size.0 == 0 { "off".to_owned() } else { ByteSize(size.0).to_string() })
    }
}

impl From<ByteSize> for NumberOrText {
    fn from(size: ByteSize) -> Self {
        Self::Text(size.to_string())
    }
}

/// The largest binary unit that divides the size, so that parsing gives the same number of bytes.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.iter().find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (unit, factor) = UNITS.iter().find(|(unit, _)| lower.ends_with(unit))?;
    let digits = lower[..lower.len() - unit.len()].trim();
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(*factor).filter(|bytes| *bytes <= i64::MAX as u64);
    }
    let bytes = digits.parse::<f64>().ok()? * *factor as f64;
    (bytes < i64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::{ByteSize, parse_size};
    use proptest::prelude::*;

    #[test]
    fn sizes_read_decimal_and_binary_units() {
        assert_eq!(parse_size("2GiB"), Some(2 << 30));
        assert_eq!(parse_size(" 512 mib "), Some(512 << 20));
        assert_eq!(parse_size("1.5GB"), Some(1_500_000_000));
        assert_eq!(parse_size("7B"), Some(7));
    }

    #[test]
    fn a_size_without_unit_or_number_is_refused() {
        for text in ["", "GiB", "-1GiB", "2 gigs", "infGB", "nanB", "99999999999TiB", "1e300GB", "é"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes in 0..i64::MAX as u64) {
            prop_assert_eq!(parse_size(&ByteSize(bytes).to_string()), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse_size(&text);
        }
    }
}
