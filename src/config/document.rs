//! The text of a configuration as a tree that knows where each key and value stands, with `--set` laid over the file.

use super::report::{Origin, Place, Problem, Problems};
use super::sections::RawConfig;
use super::vocabulary::Vocabulary;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// The file's index among the origins.
pub(super) const FILE: usize = 0;

/// A key's value and where both stand.
#[derive(Clone, Debug)]
struct Entry<'a> {
    origin: usize,
    key: Spanned<DeString<'a>>,
    value: Spanned<DeValue<'a>>,
    /// Unset when the value does not fit its key; the default then stands in until the problem is reported.
    fits: bool,
}

/// One section: its header and its keys.
#[derive(Debug, Default)]
struct Section<'a> {
    /// Set when the name is there but not as a table; no key is then reported as missing.
    malformed: bool,
    header: Option<std::ops::Range<usize>>,
    entries: BTreeMap<String, Entry<'a>>,
}

/// All sections of the file with the overrides applied.
#[derive(Debug, Default)]
pub(super) struct Document<'a> {
    sections: BTreeMap<String, Section<'a>>,
}

/// Parses the file, `origins[0]`; what is not TOML comes back as problems.
pub(super) fn parse_file(origins: &[Origin]) -> Result<DeTable<'_>, Problems> {
    let text = origins.first().map_or("", |file| file.text.as_str());
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut problems = Problems::default();
    for error in &errors {
        let place = Place { origin: FILE, span: error.span().or(Some(0..0)) };
        problems.push(Problem::new(place, "this is not valid TOML").label(error.message()));
    }
    if problems.is_empty() { Ok(root.into_inner()) } else { Err(problems) }
}

impl<'a> Document<'a> {
    /// Lays the overrides (every origin but the first) over the file. Keys that no section knows become problems.
    pub fn new(
        root: DeTable<'a>,
        origins: &'a [Origin],
        vocabulary: &Vocabulary,
        problems: &mut Problems,
    ) -> Self {
        let mut document = Self::default();
        document.read_file(root, vocabulary, problems);
        for (origin, set) in origins.iter().enumerate().skip(1) {
            document.read_override(origin, &set.text, vocabulary, problems);
        }
        document
    }

    fn read_file(&mut self, root: DeTable<'a>, vocabulary: &Vocabulary, problems: &mut Problems) {
        for (name, value) in root {
            let place = Place { origin: FILE, span: Some(name.span()) };
            if !vocabulary.has_section(name.get_ref()) {
                problems.push(vocabulary.unknown_section(place, name.get_ref()));
                continue;
            }
            let span = value.span();
            let DeValue::Table(table) = value.into_inner() else {
                self.sections.entry(name.get_ref().to_string()).or_default().malformed = true;
                let title = format!("`{}` is a section, not a key", name.get_ref());
                problems
                    .push(Problem::new(place, title).help(format!("write [{}] on a line", name.get_ref())));
                continue;
            };
            let section = self.sections.entry(name.get_ref().clone().into_owned()).or_default();
            section.header = Some(span);
            for (key, value) in table {
                section.add(
                    name.get_ref(),
                    Entry { origin: FILE, key, value, fits: true },
                    vocabulary,
                    problems,
                );
            }
        }
    }

    /// `section.key=value`: the value is read as TOML if it is TOML, else as a string.
    fn read_override(
        &mut self,
        origin: usize,
        text: &'a str,
        vocabulary: &Vocabulary,
        problems: &mut Problems,
    ) {
        let all = Place { origin, span: Some(0..text.len()) };
        let Some((path, value)) = text.split_once('=') else {
            problems.push(malformed_override(all));
            return;
        };
        let Some((section, key)) = path.trim().split_once('.') else {
            problems.push(malformed_override(all));
            return;
        };
        if !vocabulary.has_section(section) {
            let place = Place { origin, span: Some(0..path.len()) };
            problems.push(vocabulary.unknown_section(place, section));
            return;
        }
        let value_span = path.len() + 1..text.len();
        let parsed = match DeValue::parse(value.trim()) {
            Ok(parsed) => parsed.into_inner(),
            Err(_) => DeValue::String(value.trim().into()),
        };
        let entry = Entry {
            origin,
            key: Spanned::new(0..path.len(), key.into()),
            value: Spanned::new(value_span, parsed),
            fits: true,
        };
        self.displace(section, key);
        self.sections.entry(section.to_owned()).or_default().add(section, entry, vocabulary, problems);
    }

    /// `--set train.max_steps` replaces the file's `epochs`, and the other way round: only two of one origin conflict.
    fn displace(&mut self, section: &str, key: &str) {
        let other = match (section, key) {
            ("train", "max_steps") => "epochs",
            ("train", "epochs") => "max_steps",
            ("data", "train") => "sources",
            ("data", "sources") => "train",
            _ => return,
        };
        if let Some(found) = self.sections.get_mut(section)
            && found.entries.get(other).is_some_and(|entry| entry.origin == FILE)
        {
            found.entries.remove(other);
        }
    }

    /// Deserializes every section. Keys are first tried one by one, so that each wrong one is reported.
    pub fn read(&mut self, problems: &mut Problems) -> RawConfig {
        RawConfig {
            model: self.section("model", problems),
            data: self.section("data", problems),
            adapter: self.section("adapter", problems),
            optimizer: self.section("optimizer", problems),
            schedule: self.section("schedule", problems),
            train: self.section("train", problems),
            log: self.section("log", problems),
        }
    }

    fn section<T: DeserializeOwned + Default>(&mut self, name: &str, problems: &mut Problems) -> T {
        let Some(section) = self.sections.get_mut(name) else { return T::default() };
        for (key, entry) in &mut section.entries {
            let Err(error) = read_entries::<T>([&*entry]) else { continue };
            if entry.reread_as_text::<T>() {
                continue;
            }
            entry.fits = false;
            let span = if entry.origin == FILE { error.span() } else { None };
            let place = Place { origin: entry.origin, span: span.or(Some(entry.value.span())) };
            problems.push(super::vocabulary::wrong_value(place, key, error.message()));
        }
        match read_entries(section.entries.values().filter(|entry| entry.fits)) {
            Ok(value) => value,
            Err(error) => {
                let place = Place { origin: FILE, span: error.span() };
                problems.push(Problem::new(place, error.message()));
                T::default()
            }
        }
    }

    /// Whether the key is written in the file or in a `--set`.
    pub fn given(&self, section: &str, key: &str) -> bool {
        self.entry(section, key).is_some() || self.sections.get(section).is_some_and(|found| found.malformed)
    }

    /// Whether the key's value comes from a `--set`.
    pub fn overridden(&self, section: &str, key: &str) -> bool {
        self.entry(section, key).is_some_and(|entry| entry.origin != FILE)
    }

    /// The key's value; where it is not given, its section's header.
    pub fn value(&self, section: &str, key: &str) -> Place {
        match self.entry(section, key) {
            Some(entry) => Place { origin: entry.origin, span: Some(entry.value.span()) },
            None => {
                let header = self.sections.get(section).and_then(|section| section.header.clone());
                Place { origin: FILE, span: header }
            }
        }
    }

    /// One element of a list; the whole value where that is not a list of the file.
    pub fn element(&self, section: &str, key: &str, index: usize) -> Place {
        self.nested(section, key, |value| value.get(index).map(Spanned::span))
    }

    /// The value of one key of a table; the whole value where that is not a table of the file.
    pub fn table_value(&self, section: &str, key: &str, name: &str) -> Place {
        self.nested(section, key, |value| value.get(name).map(Spanned::span))
    }

    /// One key of a table; the whole value where that is not a table of the file.
    pub fn table_key(&self, section: &str, key: &str, name: &str) -> Place {
        self.nested(section, key, |value| value.as_table()?.get_key_value(name).map(|(key, _)| key.span()))
    }

    fn nested(
        &self,
        section: &str,
        key: &str,
        find: impl Fn(&DeValue<'a>) -> Option<std::ops::Range<usize>>,
    ) -> Place {
        let inner = self.entry(section, key).filter(|entry| entry.origin == FILE);
        match inner.and_then(|entry| find(entry.value.get_ref())) {
            Some(span) => Place { origin: FILE, span: Some(span) },
            None => self.value(section, key),
        }
    }

    fn entry(&self, section: &str, key: &str) -> Option<&Entry<'a>> {
        self.sections.get(section)?.entries.get(key)
    }
}

impl<'a> Section<'a> {
    fn add(&mut self, section: &str, entry: Entry<'a>, vocabulary: &Vocabulary, problems: &mut Problems) {
        let key = entry.key.get_ref().clone().into_owned();
        if vocabulary.has_key(section, &key) {
            self.entries.insert(key, entry);
        } else {
            let place = Place { origin: entry.origin, span: Some(entry.key.span()) };
            problems.push(vocabulary.unknown_key(place, section, &key));
        }
    }
}

impl<'a> Entry<'a> {
    /// A `--set` value such as `2024` or `true` that only fits its key as text becomes text.
    fn reread_as_text<T: DeserializeOwned>(&mut self) -> bool {
        let text = match self.value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => return false,
        };
        let value = Spanned::new(self.value.span(), DeValue::String(text.into()));
        let entry = Entry { origin: self.origin, key: self.key.clone(), value, fits: true };
        let fits = self.origin != FILE && read_entries::<T>([&entry]).is_ok();
        if fits {
            *self = entry;
        }
        fits
    }
}

fn read_entries<'a, 'e, T: DeserializeOwned>(
    entries: impl IntoIterator<Item = &'e Entry<'a>>,
) -> Result<T, toml::de::Error>
where
    'a: 'e,
{
    let table: DeTable<'a> =
        entries.into_iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    T::deserialize(toml::Deserializer::from(Spanned::new(0..0, table)))
}

fn malformed_override(place: Place) -> Problem {
    Problem::new(place, "--set takes section.key=value")
        .help("for example --set optimizer.learning_rate=1e-4")
}
