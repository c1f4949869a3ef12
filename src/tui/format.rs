//! Numbers for people: short, with a unit, whatever the value.

use std::time::Duration;

const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
const BINARY: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// What is written for a value that is not finite.
fn odd(value: f64) -> Option<String> {
    let name = match value {
        value if value.is_nan() => "NaN",
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        _ => return None,
    };
    Some(name.to_owned())
}

/// About three digits: 1.23, 12.3, 123.
fn three_digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with separators, or a short one from ten million on.
pub fn count(value: usize) -> String {
    if value >= 10_000_000 {
        return compact(value as f64);
    }
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 999, 1.23k, 45.6M; e-notation beyond the prefixes.
pub fn compact(value: f64) -> String {
    if let Some(text) = odd(value) {
        return text;
    }
    let (mut scaled, mut prefix) = (value, 0);
    while scaled.abs() >= 999.5 && prefix + 1 < PREFIXES.len() {
        scaled /= 1e3;
        prefix += 1;
    }
    match scaled.abs() {
        size if size >= 999.5 => format!("{value:.1e}"),
        _ if prefix == 0 && (scaled.fract() == 0.0 || scaled.abs() >= 99.95) => format!("{scaled:.0}"),
        _ => three_digits(scaled) + PREFIXES[prefix],
    }
}

/// Four digits: a loss, a norm, a rate.
pub fn number(value: f64) -> String {
    if let Some(text) = odd(value) {
        return text;
    }
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.2e}"),
        size if size >= 999.95 => format!("{value:.0}"),
        size if size >= 99.995 => format!("{value:.1}"),
        size if size >= 9.9995 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// 512 B, 1.23 GiB.
pub fn bytes(value: f64) -> String {
    if let Some(text) = odd(value) {
        return text;
    }
    let (mut scaled, mut unit) = (value, 0);
    while scaled.abs() >= 1023.5 && unit + 1 < BINARY.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if scaled.abs() >= 1023.5 {
        return format!("{value:.1e} B");
    }
    let digits = if unit == 0 { format!("{scaled:.0}") } else { three_digits(scaled) };
    format!("{digits} {}", BINARY[unit])
}

/// A time in milliseconds: 123 us, 4.56 ms, 1.23 s, 12.3 min, 10.0 h.
pub fn ms(value: f64) -> String {
    if let Some(text) = odd(value) {
        return text;
    }
    const UNITS: [(f64, f64, &str); 5] = [
        (0.9995, 1e-3, "us"),
        (999.5, 1.0, "ms"),
        (119.5e3, 1e3, "s"),
        (119.5 * 6e4, 6e4, "min"),
        (1e12, 36e5, "h"),
    ];
    if value == 0.0 {
        return "0 ms".to_owned();
    }
    match UNITS.iter().find(|(below, _, _)| value.abs() < *below) {
        Some((_, unit, name)) => format!("{} {name}", three_digits(value / unit)),
        None => format!("{:.1e} h", value / 36e5),
    }
}

/// A time of two units: 12.3s, 4m05s, 1h02m, 3d04h.
pub fn seconds(value: f64) -> String {
    if let Some(text) = odd(value) {
        return text;
    }
    let whole = value.max(0.0) as u64;
    match whole {
        0..60 => format!("{:.1}s", value.max(0.0)),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        86400..864_000_000 => format!("{}d{:02}h", whole / 86400, whole % 86400 / 3600),
        _ => format!("{:.1e}d", value / 86400.0),
    }
}

/// 00:12:33, 3d 04:05:06.
pub fn clock(time: Duration) -> String {
    let whole = time.as_secs();
    let (days, hours, minutes, seconds) = (whole / 86400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    let clock = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if days > 0 { format!("{days}d {clock}") } else { clock }
}

/// Without zeros at the end of a fraction: for ticks, which are round.
pub fn rounded(text: String) -> String {
    let Some(dot) = text.find('.') else { return text };
    let digits = text[dot + 1..].find(|letter: char| !letter.is_ascii_digit());
    let end = digits.map_or(text.len(), |length| dot + 1 + length);
    let kept = text[..end].trim_end_matches('0').trim_end_matches('.').len();
    format!("{}{}", &text[..kept], &text[end..])
}

/// A part of one as a percentage.
pub fn percent(part: f64) -> String {
    match odd(part) {
        Some(text) => text,
        None if part.abs() < 100.0 => format!("{:.1}%", part * 100.0),
        None => format!("{}%", compact(part * 100.0)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_read_well() {
        let counts = [0, 999, 1000, 1_234_567, 12_345_678].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567", "12.3M"]);
        let compacts = [0.0, 0.5, 12.34, 999.6, 12345.0, 1e9, 1e30].map(compact);
        assert_eq!(compacts, ["0", "0.50", "12.3", "1.00k", "12.3k", "1.00G", "1.0e30"]);
        let numbers = [0.0, 2e-4, 0.0123, 1.23456, 12.3456, 12345.0, 1e9, f64::NAN].map(number);
        assert_eq!(numbers, ["0", "2.00e-4", "0.0123", "1.235", "12.35", "12345", "1.00e9", "NaN"]);
        let sizes = [0.0, 1023.0, 1024.0, 1.5e9, 1e30].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "1.40 GiB", "1.0e30 B"]);
        let times = [0.0, 0.0123, 4.56, 1234.0, 90e3, 36e6, 1e300].map(ms);
        assert_eq!(times, ["0 ms", "12.3 us", "4.56 ms", "1.23 s", "90.0 s", "10.0 h", "2.8e293 h"]);
        let spans = [0.0, 12.34, 245.0, 3725.0, 273_600.0, 1e18].map(seconds);
        assert_eq!(spans, ["0.0s", "12.3s", "4m05s", "1h02m", "3d04h", "1.2e13d"]);
        let round = ["1.20k", "2.00e-4", "500 ms", "1.00 GiB", "10"].map(|text| rounded(text.to_owned()));
        assert_eq!(round, ["1.2k", "2e-4", "500 ms", "1 GiB", "10"]);
        assert_eq!(clock(Duration::from_secs(273_906)), "3d 04:05:06");
    }

    proptest! {
        #[test]
        fn nothing_gets_long(value: f64) {
            for text in [compact(value), number(value), bytes(value), ms(value), seconds(value), percent(value)] {
                prop_assert!(text.len() <= 12, "{text}");
            }
        }
    }
}
