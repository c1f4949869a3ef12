//! Text in cells: wide letters, clipping, wrapping.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

const ELLIPSIS: &str = "…";

/// A text and how it is shown.
pub type Span = (String, Style);

/// Cells that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// One line without control characters, and without what terminals disagree about: joiners and variants, whose width
/// each takes differently, and marks that turn the direction of a line.
pub fn clean(text: &str) -> String {
    let odd = |letter: char| {
        matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(letter, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{1f3fb}'..='\u{1f3ff}')
    };
    let kept = text.chars().filter(|&letter| !odd(letter));
    kept.map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The start of a cleaned text that fits, with an ellipsis where something is cut off.
pub fn fit(text: &str, most: usize) -> String {
    let text = clean(text);
    if width(&text) <= most {
        return text;
    }
    let mut kept = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        used += width(grapheme);
        if used >= most {
            break;
        }
        kept.push_str(grapheme);
    }
    if most > 0 { kept + ELLIPSIS } else { kept }
}

/// Lines of at most `most` cells and at most `lines` of them, broken between words where that is possible.
pub fn wrap(text: &str, most: usize, lines: usize) -> Vec<String> {
    let mut wrapped = Vec::new();
    if most == 0 || lines == 0 {
        return wrapped;
    }
    for paragraph in text.lines() {
        wrap_line(&clean(paragraph), most, lines, &mut wrapped);
        if wrapped.len() > lines {
            break;
        }
    }
    if wrapped.len() > lines {
        wrapped.truncate(lines);
        if let Some(last) = wrapped.last_mut() {
            *last = fit(&format!("{last}{ELLIPSIS}"), most);
        }
    }
    wrapped
}

/// Adds the lines of one paragraph; stops once there are more than `lines`.
fn wrap_line(text: &str, most: usize, lines: usize, wrapped: &mut Vec<String>) {
    let (mut line, mut used) = (String::new(), 0);
    for word in text.split_word_bounds() {
        if wrapped.len() > lines {
            return;
        }
        let length = width(word);
        if used + length > most && used > 0 {
            wrapped.push(std::mem::take(&mut line).trim_end().to_owned());
            used = 0;
            if word.trim().is_empty() {
                continue;
            }
        }
        if length <= most {
            line.push_str(word);
            used += length;
            continue;
        }
        for grapheme in word.graphemes(true) {
            let length = width(grapheme);
            if used + length > most && used > 0 {
                wrapped.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += length;
        }
    }
    wrapped.push(line.trim_end().to_owned());
}

/// Writes a text into row `y` of `area`, from column `x`, both counted from the area's corner. Returns the column after
/// it. What lies outside the area is cut off.
pub fn put(buffer: &mut Buffer, area: Rect, x: usize, y: usize, text: &str, style: Style) -> usize {
    let area = area.intersection(buffer.area);
    let (wide, high) = (usize::from(area.width), usize::from(area.height));
    if y >= high || x >= wide {
        return x;
    }
    let (column, row) = (area.x + x as u16, area.y + y as u16);
    let text = fit(text, wide - x);
    let (end, _) = buffer.set_stringn(column, row, &text, wide - x, Style::reset().patch(style));
    usize::from(end - area.x)
}

/// Writes texts one after the other.
pub fn put_spans(buffer: &mut Buffer, area: Rect, x: usize, y: usize, spans: &[Span]) -> usize {
    spans.iter().fold(x, |x, (text, style)| put(buffer, area, x, y, text, *style))
}

/// Writes texts so that they end at the area's right edge; those that do not fit are left out, from the first.
pub fn put_right(buffer: &mut Buffer, area: Rect, y: usize, from: usize, spans: &[Span]) {
    let room = usize::from(area.width).saturating_sub(from);
    let mut kept = spans;
    while kept.iter().map(|(text, _)| width(text)).sum::<usize>() > room {
        match kept.split_first() {
            Some((_, rest)) => kept = rest,
            None => return,
        }
    }
    let used: usize = kept.iter().map(|(text, _)| width(text)).sum();
    put_spans(buffer, area, usize::from(area.width) - used, y, kept);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_stay_whole_where_they_can() {
        assert_eq!(wrap("one two three", 8, 9), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4, 9), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a\n\nb", 4, 9), ["a", "", "b"]);
        assert_eq!(wrap("one two three", 5, 2), ["one", "two…"]);
        assert_eq!(wrap("漢字漢字", 5, 9), ["漢字", "漢字"]);
        assert_eq!(fit("漢字漢字", 6), "漢字…");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in "\\PC{0,60}", most in 0_usize..30, lines in 0_usize..6) {
            prop_assert!(width(&fit(&text, most)) <= most);
            let wrapped = wrap(&text, most, lines);
            prop_assert!(wrapped.len() <= lines);
            // A single grapheme may be wider than the room.
            prop_assert!(wrapped.iter().all(|line| width(line) <= most || line.graphemes(true).count() == 1));
        }

        #[test]
        fn writing_anywhere_is_safe(text in any::<String>(), x in 0_usize..20, y in 0_usize..5, w in 0_u16..20, h in 0_u16..4) {
            let mut buffer = Buffer::empty(Rect::new(0, 0, 10, 3));
            put(&mut buffer, Rect::new(2, 1, w, h), x, y, &text, Style::new());
            put_right(&mut buffer, Rect::new(2, 1, w, h), y, x, &[(text, Style::new())]);
        }
    }
}
