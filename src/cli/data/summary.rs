//! The numbers after the rows.

use crate::config::{DataSection, Validation};
use crate::data::report::{DataReport, PartReport};
use crate::data::{DatasetCounts, RowKind};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fmt;

/// Columns of the longest bar.
const BAR: usize = 40;
/// Eighths of a column, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

pub struct Summary<'a> {
    pub report: &'a DataReport,
    pub section: &'a DataSection,
    pub color: bool,
    pub plain: bool,
}

impl Summary<'_> {
    /// The report with the kinds of rows by name.
    pub fn json(&self) -> Result<Value> {
        let mut value =
            serde_json::to_value(self.report).map_err(|error| Error::internal(error.to_string()))?;
        for (key, counts) in [
            ("counts", Some(&self.report.counts)),
            ("validation_counts", self.report.validation_counts.as_ref()),
        ] {
            let kinds: Map<String, Value> = counts
                .into_iter()
                .flat_map(kinds)
                .map(|(name, rows)| (name.to_owned(), rows.into()))
                .collect();
            if let Some(counts) = value.get_mut(key).and_then(Value::as_object_mut) {
                counts.insert("kinds".to_owned(), kinds.into());
            }
        }
        Ok(value)
    }

    fn counts(&self, f: &mut fmt::Formatter<'_>, name: &str, counts: &DatasetCounts) -> fmt::Result {
        let listed: Vec<String> =
            kinds(counts).map(|(name, rows)| format!("{} {name}", grouped(rows))).collect();
        self.line(f, name, &format!("{} rows: {}", grouped(counts.rows), listed.join(", ")))?;
        for notice in counts.notices() {
            self.line(f, "", &self.paint(&notice, "33"))?;
        }
        Ok(())
    }

    fn part(&self, f: &mut fmt::Formatter<'_>, name: &str, part: &PartReport) -> fmt::Result {
        let share = 100.0 * part.supervised_tokens as f64 / part.tokens.max(1) as f64;
        let mut examples = String::new();
        if part.examples != part.rows {
            examples = format!(", {} examples", grouped(part.examples));
        }
        let (rows, tokens) = (grouped(part.rows), grouped(part.tokens));
        let trained = grouped(part.supervised_tokens);
        self.line(
            f,
            name,
            &format!("{rows} rows{examples}, {tokens} tokens, {trained} trained ({share:.1}%)"),
        )
    }

    fn epoch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.report.train;
        let drawn = if self.section.sources.is_empty() { "" } else { " drawn by weight" };
        let (tokens, examples) = (grouped(part.epoch_tokens), grouped(part.epoch_examples));
        self.line(f, "epoch", &format!("{tokens} tokens in {examples} examples{drawn}"))?;
        let state = if self.section.packing { "" } else { " (data.packing is off)" };
        let (sequences, full) = (grouped(part.packed_sequences), 100.0 * part.packing_efficiency);
        let length = self.section.max_length;
        self.line(f, "packed", &format!("{sequences} sequences of {length} tokens, {full:.1}% full{state}"))
    }

    fn lengths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.report.train;
        let PartReport { shortest, median, longest, .. } = part;
        self.line(f, "lengths", &format!("{shortest} to {longest} tokens in training, median {median}"))?;
        let most = self.report.lengths.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        for &(up_to, count) in &self.report.lengths {
            let over = up_to > self.section.max_length;
            let bar = self.paint(&self.bar(count, most), if over { "33" } else { "34" });
            let remark = if over { "  over data.max_length" } else { "" };
            writeln!(f, "{:>11}  {bar} {}{remark}", format!("<= {up_to}"), grouped(count))?;
        }
        Ok(())
    }

    fn bar(&self, count: usize, most: usize) -> String {
        let eighths = (count as u128 * 8 * BAR as u128).div_ceil(most as u128) as usize;
        if self.plain {
            return "#".repeat(eighths.div_ceil(8));
        }
        let mut bar = "█".repeat(eighths / 8);
        bar.extend((eighths % 8).checked_sub(1).map(|part| EIGHTHS[part]));
        bar
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
        writeln!(f, "{}  {text}", self.paint(&format!("{name:<11}"), "1"))
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        self.counts(f, "read", &report.counts)?;
        if let Some(counts) = &report.validation_counts {
            self.counts(f, "validation", counts)?;
        }
        if report.bad > 0 {
            let read = report.validation_counts.map_or(0, |counts| counts.rows) + report.counts.rows;
            let (bad, all) = (grouped(report.bad), grouped(read + report.bad));
            let problem = format!("{bad} of {all} rows cannot be used");
            self.line(f, "bad rows", &self.paint(&problem, "1;31"))?;
        }
        self.part(f, "train", &report.train)?;
        match (&report.validation, &self.section.validation) {
            (Some(part), Validation::Auto) => self.part(f, "held out", part)?,
            (Some(part), _) => self.part(f, "validate", part)?,
            (None, _) => self.line(f, "validate", "nothing")?,
        }
        match &report.leak_warning {
            Some(warning) => self.line(f, "leaks", &self.paint(warning, "1;33"))?,
            None if report.validation.is_some() => self.line(f, "leaks", "none")?,
            None => {}
        }
        self.epoch(f)?;
        self.lengths(f)?;
        if report.train.supervised_tokens == 0 {
            let problem =
                "nothing is trained: check data.train_on, data.max_length and the roles of the messages";
            self.line(f, "problem", &self.paint(problem, "1;31"))?;
        }
        Ok(())
    }
}

/// Kinds that occur, and how many rows they have.
fn kinds(counts: &DatasetCounts) -> impl Iterator<Item = (&'static str, usize)> {
    let named = RowKind::ALL.iter().zip(counts.kinds).map(|(kind, rows)| (kind.name(), rows));
    named.filter(|(_, rows)| *rows > 0)
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"].join(" "),
            [0, 999, 1000, 1_234_567].map(grouped).join(" ")
        );
    }
}
