//! What rows that are trained on as they are read cannot have, and what only they have.

use super::Resolver;
use crate::config::sections::{RawData, RawTrain, TextOrList};

impl Resolver<'_> {
    pub(super) fn streaming(&mut self, data: &RawData, train: &RawTrain) {
        if !data.streaming {
            let defaults = RawData::default();
            self.needs_streaming("shuffle_buffer", data.shuffle_buffer != defaults.shuffle_buffer);
            let limited = data.max_validation_rows != defaults.max_validation_rows;
            self.needs_streaming("max_validation_rows", limited);
            return;
        }
        if train.max_steps.is_none() {
            let problem = self.problem("data", "streaming", "`streaming` needs train.max_steps");
            let label = "the steps of an epoch are not known before all rows are read";
            self.report(problem.label(label).help("set train.max_steps: the data starts over where it ends"));
        }
        let refused = [
            ("data", "deduplicate", data.deduplicate, "equal rows are only known when all are read"),
            ("data", "sources", !data.sources.is_empty(), "the rows of a source are only counted at its end"),
            (
                "train",
                "frozen_prefix_cache",
                train.frozen_prefix_cache.is_some_and(|size| size.0 > 0),
                "it is for rows that are met again and again",
            ),
            (
                "train",
                "frozen_prefix_cache_dir",
                train.frozen_prefix_cache_dir.is_some(),
                "it is for rows that are met again and again",
            ),
        ];
        for (section, key, given, reason) in refused {
            if given {
                let streaming = self.document.value("data", "streaming");
                let title = format!("`{key}` does not go with data.streaming");
                let problem = self.problem(section, key, title).label(reason);
                self.report(problem.also(streaming, "here").help("remove one of the two"));
            }
        }
        let auto = matches!(&data.validation, TextOrList::Text(text) if text == "auto");
        if !auto && data.max_validation_rows != RawData::default().max_validation_rows {
            let place = self.document.value("data", "validation");
            let title = "`max_validation_rows` is never used";
            let problem = self.problem("data", "max_validation_rows", title);
            self.report(problem.also(place, "only \"auto\" holds rows out"));
        }
    }

    fn needs_streaming(&mut self, key: &str, changed: bool) {
        if changed {
            let problem = self.problem("data", key, format!("`{key}` is never used"));
            let help = "set data.streaming = true, or remove it: without streaming all rows are read first";
            self.report(problem.help(help));
        }
    }
}
