//! What a user should know about the rows before they are trained on, in words.

use super::dataset::{Dataset, DatasetCounts};

/// Rows named as examples.
const NAMED: usize = 3;

impl DatasetCounts {
    /// A sentence for everything that happened to rows.
    pub fn notices(&self) -> Vec<String> {
        let lost = match self.lost_targets {
            0 => String::new(),
            lost => format!(", which loses {lost} trained tokens"),
        };
        let told = [
            (self.truncated, format!("cut to data.max_length{lost}")),
            (self.dropped, format!("dropped for being longer than data.max_length{lost}")),
            (self.split, "longer than data.max_length and split into several examples".to_owned()),
            (self.unsupervised, "skipped because nothing is trained there".to_owned()),
            (
                self.rewritten,
                "made into several examples, because the chat template prints earlier turns differently"
                    .to_owned(),
            ),
            (self.deduplicated, "skipped as duplicates".to_owned()),
            (
                self.duplicates - self.deduplicated,
                "equal to one before; data.deduplicate = true would skip such rows".to_owned(),
            ),
        ];
        let happened = told.iter().filter(|(count, _)| *count > 0);
        happened.map(|(count, what)| format!("{} {what}", rows(*count))).collect()
    }
}

fn rows(count: usize) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

impl Dataset {
    /// What happened to rows as they were read.
    pub fn notices(&self) -> Vec<String> {
        self.counts.notices()
    }

    /// A warning where rows are both trained and validated on.
    pub fn leak_notice(&self, validation: &Self) -> Option<String> {
        let shared = validation.shared_rows(self);
        if shared.is_empty() {
            return None;
        }
        let named = shared.iter().take(NAMED).map(|(row, trained)| format!("{} is {trained}", row.source));
        Some(leak_words(shared.len(), &named.collect::<Vec<_>>()))
    }
}

/// The warning for `count` validation rows, some of them named.
pub(crate) fn leak_words(count: usize, named: &[String]) -> String {
    format!(
        "{count} validation rows are also trained on, so that evaluation looks better than it is: {}{}",
        named.join(", "),
        if count > named.len() { " ..." } else { "" }
    )
}
