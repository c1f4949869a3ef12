//! One row as text: trained tokens in color, or in brackets.

use super::ShownRow;
use std::fmt;

/// Characters of one stretch that are shown: its beginning and its end.
const SHOWN_START: usize = 600;
const SHOWN_END: usize = 200;

const BOLD: &str = "1";
const DIM: &str = "2";
const TRAINED: &str = "32";
const REMARK: &str = "33";

pub struct RowText<'a> {
    pub row: &'a ShownRow,
    pub color: bool,
}

impl fmt::Display for RowText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShownRow { place, kind, remarks, examples } = self.row;
        let count = examples.len();
        if examples.is_empty() {
            return self.header(f, &format!("{place}  {kind}"), remarks);
        }
        for (index, example) in examples.iter().enumerate() {
            let sum = |trained: bool| -> usize {
                example.iter().filter(|piece| piece.trained || !trained).map(|piece| piece.tokens).sum()
            };
            let part = if count > 1 { format!("  part {} of {count}", index + 1) } else { String::new() };
            let title = format!("{place}  {kind}{part}  {} tokens, {} trained", sum(false), sum(true));
            if index > 0 {
                writeln!(f)?;
            }
            self.header(f, &title, remarks)?;
            for piece in example {
                let text = shortened(&piece.text);
                match (self.color, piece.trained) {
                    (true, true) => painted_lines(f, &text, TRAINED)?,
                    (true, false) => painted_lines(f, &text, DIM)?,
                    (false, true) => write!(f, "[{text}]")?,
                    (false, false) => f.write_str(&text)?,
                }
            }
            let ends_line = example.last().is_some_and(|piece| piece.text.ends_with('\n') && !piece.trained);
            f.write_str(if ends_line { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl RowText<'_> {
    fn header(&self, f: &mut fmt::Formatter<'_>, title: &str, remarks: &[&str]) -> fmt::Result {
        let paint = |text: &str, code: &str| {
            if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        f.write_str(&paint(title, BOLD))?;
        for remark in remarks {
            write!(f, "  {}", paint(remark, REMARK))?;
        }
        writeln!(f)
    }
}

/// Each line by itself, so that a pager that shows part of it has the color.
fn painted_lines(f: &mut fmt::Formatter<'_>, text: &str, code: &str) -> fmt::Result {
    for line in text.split_inclusive('\n') {
        let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
        if !content.is_empty() {
            write!(f, "\x1b[{code}m{content}\x1b[0m")?;
        }
        f.write_str(end)?;
    }
    Ok(())
}

/// Without the middle of a long text, and with control characters made visible: rows must not steer the terminal.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    let visible = |character: char| match character {
        '\n' | '\t' => character.to_string(),
        control if control.is_control() => control.escape_default().to_string(),
        character => character.to_string(),
    };
    if length <= SHOWN_START + SHOWN_END {
        return text.chars().map(visible).collect();
    }
    let start: String = text.chars().take(SHOWN_START).map(visible).collect();
    let end: String = text.chars().skip(length - SHOWN_END).map(visible).collect();
    format!("{start} ... {} characters ... {end}", length - SHOWN_START - SHOWN_END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::preview::Stretch;

    fn row() -> ShownRow {
        let piece = |text: &str, trained, tokens| Stretch { text: text.to_owned(), trained, tokens };
        ShownRow {
            place: "rows.jsonl:7".to_owned(),
            kind: "messages",
            remarks: vec!["cut to data.max_length"],
            examples: vec![vec![piece("<user>\x1b[2Jhi\n", false, 4), piece("one\ntwo", true, 3)]],
        }
    }

    #[test]
    fn trained_text_is_bracketed_or_colored() {
        let row = row();
        let plain = RowText { row: &row, color: false }.to_string();
        assert_eq!(
            plain,
            "rows.jsonl:7  messages  7 tokens, 3 trained  cut to data.max_length\n<user>\\u{1b}[2Jhi\n[one\ntwo]\n"
        );
        let colored = RowText { row: &row, color: true }.to_string();
        assert!(colored.contains("\x1b[32mone\x1b[0m\n\x1b[32mtwo\x1b[0m"), "{colored:?}");
    }

    #[test]
    fn the_middle_of_a_long_text_is_left_out() {
        let text = format!("{}{}", "a".repeat(700), "b".repeat(300));
        let short = shortened(&text);
        assert!(
            short.starts_with("aaa") && short.ends_with("bbb") && short.contains(" ... 200 characters ... ")
        );
    }
}
