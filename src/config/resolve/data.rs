//! Checks of `[data]`.

use super::{Resolver, paths};
use crate::config::report::{Place, Problem};
use crate::config::sections::{DataSection, RawData, RawSource, TextOrList, Validation, WeightedSource};
use std::collections::HashMap;
use std::path::PathBuf;

/// Files of one key with the place that names each.
type Found = Vec<(PathBuf, Place)>;

impl Resolver<'_> {
    pub(super) fn data(&mut self, raw: RawData) -> DataSection {
        let (train, sources) = match &raw.train {
            Some(patterns) => (self.files("train", patterns), self.needless_sources(&raw.sources)),
            None if raw.sources.is_empty() => (self.no_training_data(), Vec::new()),
            None => self.sources(&raw.sources),
        };
        let validation = self.validation(&raw.validation, &train);
        if validation != Validation::Auto && raw.validation_fraction != RawData::default().validation_fraction
        {
            let place = self.document.value("data", "validation");
            let problem = self.problem("data", "validation_fraction", "`validation_fraction` is never used");
            self.report(problem.also(place, "only \"auto\" holds rows out"));
        }
        let chat_template = raw.chat_template.map(|file| self.input("data", "chat_template", &file));
        if let Some(file) = chat_template.as_ref().filter(|file| !file.is_file()) {
            let problem = self.problem("data", "chat_template", "the chat template is not a file");
            let looked = format!("looked at {}", file.display());
            self.report(problem.help(looked));
        }
        DataSection {
            train: train.into_iter().map(|(file, _)| file).collect(),
            sources,
            validation,
            validation_fraction: raw.validation_fraction,
            max_length: raw.max_length,
            shuffle: raw.shuffle,
            streaming: raw.streaming,
            shuffle_buffer: raw.shuffle_buffer,
            max_validation_rows: raw.max_validation_rows,
            packing: raw.packing,
            train_on: raw.train_on,
            overlong: raw.overlong,
            deduplicate: raw.deduplicate,
            cache: raw.cache,
            cache_dir: raw.cache_dir.map(|folder| self.output(&folder)),
            chat_template,
        }
    }

    fn needless_sources(&mut self, sources: &[RawSource]) -> Vec<WeightedSource> {
        if !sources.is_empty() {
            let place = self.document.value("data", "train");
            let problem =
                self.problem("data", "sources", "`train` and `sources` both name the training rows");
            let problem = problem.also(place, "here too");
            self.report(problem.help("name all files in [[data.sources]], or all in `train`"));
        }
        Vec::new()
    }

    /// The files of all sources, and the sources. A file of two sources would have two weights, and is refused.
    fn sources(&mut self, sources: &[RawSource]) -> (Found, Vec<WeightedSource>) {
        let (mut found, mut weighted) = (Found::new(), Vec::new());
        let mut seen = HashMap::new();
        for (index, source) in sources.iter().enumerate() {
            let place = self.document.element("data", "sources", index);
            if !(source.weight.is_finite() && source.weight > 0.0) {
                let problem = Problem::new(place.clone(), "`weight` is out of range");
                self.report(problem.label("must be a finite number greater than 0"));
            }
            let before = found.len();
            self.add_files("sources", &source.path, |_| place.clone(), &mut seen, &mut found);
            let files = found[before..].iter().map(|(file, _)| file.clone()).collect();
            weighted.push(WeightedSource { files, weight: source.weight });
        }
        (found, weighted)
    }

    fn no_training_data(&mut self) -> Found {
        if !self.document.given("data", "train") && !self.document.given("data", "sources") {
            let problem = self.problem("data", "train", "[data] needs `train`: the rows to train on");
            self.report(problem.help("train = \"rows.jsonl\", or a list of files and globs"));
        }
        Vec::new()
    }

    fn validation(&mut self, value: &TextOrList, train: &Found) -> Validation {
        match value {
            TextOrList::Text(text) if text == "none" => Validation::None,
            TextOrList::Text(text) if text == "auto" => Validation::Auto,
            _ => {
                let files = self.files("validation", value);
                for (file, place) in &files {
                    if let Some((_, first)) = train.iter().find(|(other, _)| same_file(file, other)) {
                        let title = format!("{} is both trained and validated on", file.display());
                        let problem = Problem::new(place.clone(), title);
                        self.report(
                            problem
                                .also(first.clone(), "trained on here")
                                .help("validation = \"auto\" holds rows of the training files out"),
                        );
                    }
                }
                Validation::Files(files.into_iter().map(|(file, _)| file).collect())
            }
        }
    }

    /// The files that a list of paths and globs names.
    fn files(&mut self, key: &str, patterns: &TextOrList) -> Found {
        let mut found = Found::new();
        let document = self.document;
        let place = |index| match patterns {
            TextOrList::Text(_) => document.value("data", key),
            TextOrList::List(_) => document.element("data", key, index),
        };
        self.add_files(key, patterns, place, &mut HashMap::new(), &mut found);
        found
    }

    /// Adds to `found`. A file named twice would count twice, and is refused.
    fn add_files(
        &mut self,
        key: &str,
        patterns: &TextOrList,
        place: impl Fn(usize) -> Place,
        seen: &mut HashMap<PathBuf, Place>,
        found: &mut Found,
    ) {
        if patterns.items().is_empty() {
            let problem = self.problem("data", key, format!("`{key}` names no files"));
            self.report(problem);
        }
        for (index, pattern) in patterns.items().iter().enumerate() {
            let place = place(index);
            let files = match paths::expand(self.base("data", key), pattern) {
                Ok(files) => files,
                Err(reason) => {
                    let title = format!("`{key}` names no data");
                    self.report(Problem::new(place, title).label(reason));
                    continue;
                }
            };
            for file in files {
                if let Some(first) = seen.insert(file.clone(), place.clone()) {
                    let title = format!("{} is named twice", file.display());
                    let problem = Problem::new(place.clone(), title);
                    self.report(problem.also(first, "first here"));
                } else {
                    found.push((file, place.clone()));
                }
            }
        }
    }
}

fn same_file(a: &PathBuf, b: &PathBuf) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
