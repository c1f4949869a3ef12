//! One line that is typed in.

use unicode_segmentation::UnicodeSegmentation;

/// Bytes that fit.
const LONGEST: usize = 4000;

/// Text and the place where typing adds to it, always between graphemes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextField {
    text: String,
    /// A byte offset.
    cursor: usize,
}

impl TextField {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands before and after the cursor.
    pub fn split(&self) -> (&str, &str) {
        self.text.split_at_checked(self.cursor).unwrap_or((&self.text, ""))
    }

    /// Control characters become blanks.
    pub fn insert(&mut self, text: &str) {
        for letter in text.chars() {
            let letter = if letter.is_control() { ' ' } else { letter };
            if self.text.len() + letter.len_utf8() > LONGEST || !self.text.is_char_boundary(self.cursor) {
                return;
            }
            self.text.insert(self.cursor, letter);
            self.cursor += letter.len_utf8();
        }
    }

    /// Moves the cursor by one grapheme.
    pub fn left(&mut self) {
        let before = self.split().0.graphemes(true).next_back().map_or(0, str::len);
        self.cursor -= before;
    }

    /// Moves the cursor by one grapheme.
    pub fn right(&mut self) {
        let after = self.split().1.graphemes(true).next().map_or(0, str::len);
        self.cursor += after;
    }

    pub fn home(&mut self) {
        self.cursor = 0;
    }

    pub fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Takes the grapheme before the cursor away.
    pub fn backspace(&mut self) {
        let end = self.cursor;
        self.left();
        self.text.replace_range(self.cursor..end, "");
    }

    /// Takes the grapheme after the cursor away.
    pub fn delete(&mut self) {
        let start = self.cursor;
        let after = self.split().1.graphemes(true).next().map_or(0, str::len);
        self.text.replace_range(start..start + after, "");
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn graphemes_are_edited_whole() {
        let mut field = TextField::default();
        field.insert("ae\u{301}👩‍👧b");
        field.left();
        field.backspace();
        assert_eq!(field.text(), "ae\u{301}b");
        field.left();
        assert_eq!(field.split(), ("a", "e\u{301}b"));
        field.delete();
        assert_eq!(field.text(), "ab");
        field.insert("\u{1b}\n");
        assert_eq!(field.text(), "a  b");
    }

    proptest! {
        #[test]
        fn any_editing_is_safe(edits in prop::collection::vec((0_u8..7, "\\PC{0,4}"), 0..80)) {
            let mut field = TextField::default();
            for (edit, text) in edits {
                match edit {
                    0 => field.left(),
                    1 => field.right(),
                    2 => field.home(),
                    3 => field.end(),
                    4 => field.backspace(),
                    5 => field.delete(),
                    _ => field.insert(&text),
                }
                let (before, after) = field.split();
                prop_assert_eq!(before.len() + after.len(), field.text().len());
                prop_assert!(field.text().is_char_boundary(field.cursor));
            }
        }
    }
}
