//! What chat templates may call: the functions and filters that transformers gives them.

use minijinja::value::{Kwargs, Value as JinjaValue};
use minijinja::{Error as JinjaError, ErrorKind as JinjaErrorKind};
use serde_json::Value;

/// Converts JSON to a template value; object keys keep their order.
pub(crate) fn jinja_value(value: &Value) -> JinjaValue {
    match value {
        Value::Null => JinjaValue::from(()),
        Value::Bool(value) => JinjaValue::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => JinjaValue::from(integer),
            (None, Some(integer)) => JinjaValue::from(integer),
            (None, None) => JinjaValue::from(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => JinjaValue::from(text.as_str()),
        Value::Array(items) => items.iter().map(jinja_value).collect(),
        Value::Object(fields) => {
            JinjaValue::from_pairs(fields.iter().map(|(key, value)| (key.as_str(), jinja_value(value))))
        }
    }
}

/// `raise_exception(message)`: how templates refuse a conversation.
pub(crate) fn raise_exception(message: String) -> Result<String, JinjaError> {
    Err(JinjaError::new(JinjaErrorKind::InvalidOperation, message))
}

/// `tojson` as Python's `json.dumps(value, ensure_ascii=False)` prints it. The built-in filter escapes four characters
/// for HTML; that is undone here, leaving alone a `u003c` that follows an escaped backslash.
pub(crate) fn to_json(value: &JinjaValue, arguments: Kwargs) -> Result<JinjaValue, JinjaError> {
    let indent: Option<JinjaValue> = arguments.get("indent")?;
    let escaped =
        minijinja::filters::tojson(value, indent, Kwargs::from_iter(Vec::<(String, JinjaValue)>::new()))?;
    let escaped = escaped.to_string();
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped.as_str();
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (length, plain) = match rest.get(..6) {
            Some("\\u003c") => (6, "<"),
            Some("\\u003e") => (6, ">"),
            Some("\\u0026") => (6, "&"),
            Some("\\u0027") => (6, "'"),
            _ => (rest.char_indices().nth(2).map_or(rest.len(), |(index, _)| index), ""),
        };
        text.push_str(if plain.is_empty() { &rest[..length] } else { plain });
        rest = &rest[length..];
    }
    text.push_str(rest);
    Ok(JinjaValue::from(text))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// `strftime_now(format)` for a fixed time in seconds since 1970, UTC, in the C locale. Unknown directives stay as
/// they are.
pub(crate) fn format_time(seconds: u64, format: &str) -> String {
    let days = seconds / 86_400;
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS[month - 1];
    // 1970-01-01 was a Thursday.
    let weekday = WEEKDAYS[((days + 3) % 7) as usize];
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => text.push_str(&year.to_string()),
            Some('y') => text.push_str(&format!("{:02}", year % 100)),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('e') => text.push_str(&format!("{day:2}")),
            Some('B') => text.push_str(month_name),
            Some('b') => text.push_str(&month_name[..3]),
            Some('A') => text.push_str(weekday),
            Some('a') => text.push_str(&weekday[..3]),
            Some('H') => text.push_str(&format!("{hour:02}")),
            Some('M') => text.push_str(&format!("{minute:02}")),
            Some('S') => text.push_str(&format!("{second:02}")),
            Some('F') => text.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => text.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

/// Year, month 1-12 and day 1-31 of a number of days since 1970-01-01, by stepping over whole years and months.
fn civil_date(days: u64) -> (u64, usize, u64) {
    // 400 Gregorian years are 146,097 days; taking them out first bounds the loop below.
    let (cycles, mut left) = (days / 146_097, days % 146_097);
    let mut year = 1970 + 400 * cycles;
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_printed_as_python_does() {
        let value = json!({"a": "<b> & 'c' \\u003c \"é\"", "n": [1, 2.5, null, true]});
        let text =
            to_json(&jinja_value(&value), Kwargs::from_iter(Vec::<(String, JinjaValue)>::new())).unwrap();
        assert_eq!(text.to_string(), r#"{"a": "<b> & 'c' \\u003c \"é\"", "n": [1, 2.5, null, true]}"#);
    }

    #[test]
    fn time_is_formatted_in_utc() {
        assert_eq!(format_time(0, "%A %d %B %Y"), "Thursday 01 January 1970");
        assert_eq!(format_time(1_721_990_096, "%d %b %Y, %a %H:%M:%S"), "26 Jul 2024, Fri 10:34:56");
        assert_eq!(format_time(951_782_400, "%F %e %% %q"), "2000-02-29 29 % %q");
    }
}
