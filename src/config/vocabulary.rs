//! The keys that exist, the nearest right one for a wrong one, and plain words for serde's messages.

use super::report::{Place, Problem};
use serde_json::{Map, Value};

/// Names that other trainers use for a key of ours.
const SYNONYMS: [(&str, &str, &str); 24] = [
    ("base_model", "model", "path"),
    ("model_name_or_path", "model", "path"),
    ("torch_dtype", "model", "dtype"),
    ("dataset", "data", "train"),
    ("max_seq_length", "data", "max_length"),
    ("sequence_len", "data", "max_length"),
    ("lora_r", "adapter", "r"),
    ("rank", "adapter", "r"),
    ("lora_alpha", "adapter", "alpha"),
    ("lora_dropout", "adapter", "dropout"),
    ("rslora", "adapter", "use_rslora"),
    ("layers", "adapter", "layers_to_transform"),
    ("lr", "optimizer", "learning_rate"),
    ("adam_epsilon", "optimizer", "eps"),
    ("optim", "optimizer", "name"),
    ("lr_scheduler_type", "schedule", "name"),
    ("min_lr", "schedule", "min_learning_rate"),
    ("num_train_epochs", "train", "epochs"),
    ("num_epochs", "train", "epochs"),
    ("steps", "train", "max_steps"),
    ("per_device_train_batch_size", "train", "batch_size"),
    ("grad_accumulation_steps", "train", "gradient_accumulation_steps"),
    ("run_dir", "train", "output_dir"),
    ("patience", "train", "early_stopping_patience"),
];

/// Below this Jaro-Winkler similarity a suggestion would only puzzle.
const SIMILAR: f64 = 0.8;

/// The sections and keys of the schema.
#[derive(Debug)]
pub(super) struct Vocabulary {
    sections: Map<String, Value>,
}

impl Vocabulary {
    pub fn new(schema: &Value) -> Self {
        let sections = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        Self { sections }
    }

    pub fn has_section(&self, section: &str) -> bool {
        self.sections.contains_key(section)
    }

    pub fn has_key(&self, section: &str, key: &str) -> bool {
        self.keys().any(|(s, k, _)| s == section && k == key)
    }

    /// Section, key and schema of every key.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.sections.iter().flat_map(|(name, section)| {
            let keys = section.get("properties").and_then(Value::as_object);
            keys.into_iter().flatten().map(move |(key, schema)| (name.as_str(), key.as_str(), schema))
        })
    }

    /// A name at the top of the file that is no section: perhaps a key that belongs to one.
    pub fn unknown_section(&self, place: Place, name: &str) -> Problem {
        let problem = Problem::new(place, format!("there is no section `{name}`")).label("unknown section");
        let sections = || self.sections.keys().map(String::as_str);
        if let Some(near) = nearest(name, sections()) {
            return problem.help(format!("did you mean [{near}]?"));
        }
        if let Some((section, key, _)) = self.keys().find(|(_, key, _)| *key == name) {
            return problem.help(format!("`{key}` is a key of [{section}]"));
        }
        problem.help(format!("the sections are {}", listed(sections())))
    }

    pub fn unknown_key(&self, place: Place, section: &str, name: &str) -> Problem {
        let title = format!("[{section}] has no key `{name}`");
        let problem = Problem::new(place, title).label("unknown key");
        let own = || self.keys().filter(|(s, _, _)| *s == section).map(|(_, key, _)| key);
        let synonym = SYNONYMS.iter().find(|(other, _, _)| *other == name.to_ascii_lowercase());
        let elsewhere = self.keys().find(|(_, key, _)| *key == name);
        let help = if let Some((_, _, key)) = synonym.filter(|(_, home, _)| *home == section) {
            format!("here it is called `{key}`")
        } else if let Some((home, key, _)) = elsewhere {
            format!("`{key}` is a key of [{home}]")
        } else if let Some(near) = nearest(name, own()) {
            format!("did you mean `{near}`?")
        } else if let Some((_, home, key)) = synonym {
            format!("here it is called `{key}`, in [{home}]")
        } else if let Some(near) = nearest(name, self.keys().map(|(_, key, _)| key)) {
            let homes = self.keys().filter(|(_, key, _)| *key == near).map(|(home, _, _)| home);
            format!("did you mean `{near}` of [{}]?", homes.collect::<Vec<_>>().join("] or ["))
        } else {
            format!("its keys are {}", listed(own()))
        };
        problem.help(help)
    }
}

/// The most similar candidate, if one is similar at all.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Similarity takes time quadratic in the lengths, and no key is this long.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A value of the wrong type or outside an enumeration, from serde's message.
pub(super) fn wrong_value(place: Place, key: &str, message: &str) -> Problem {
    let title = format!("`{key}` has a value that does not fit");
    let problem = Problem::new(place, title).label(plain_words(message));
    let Some(rest) = message.strip_prefix("unknown variant ") else { return problem };
    // serde quotes the given variant first, then the right ones.
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let given = quoted.next().unwrap_or_default();
    match nearest(given, quoted) {
        Some(near) => problem.help(format!("did you mean \"{near}\"?")),
        None => problem,
    }
}

/// serde names Rust types; a reader of TOML knows numbers and strings.
fn plain_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let expected = match expected {
        "f64" => "a number",
        "usize" | "u64" => "a whole number that is not negative",
        "a string" | "path string" => "a string",
        "a sequence" => "a list",
        "a tuple of size 2" => "a list of two numbers",
        "a map" => "a table",
        "a boolean" => "true or false",
        other => {
            let variants: Vec<_> = other.split('`').skip(1).step_by(2).collect();
            let quoted: Vec<_> = variants.iter().map(|variant| format!("\"{variant}\"")).collect();
            return match quoted.split_last() {
                None => format!("expected {other}"),
                Some((last, [])) => format!("expected {last}"),
                Some((last, rest)) => format!("expected {} or {last}", rest.join(", ")),
            };
        }
    };
    let Some(kind) = found.trim_end_matches([' ', ',']).strip_prefix("invalid type: ") else {
        return format!("expected {expected}");
    };
    let found = match kind.split_whitespace().next().unwrap_or_default() {
        // Only a number that no Rust integer holds gets here.
        "integer" if expected.starts_with("a whole number") => return "the number is too large".to_owned(),
        "integer" => "a whole number",
        "floating" => "a fraction",
        "string" => "a string",
        "boolean" => "a boolean",
        "sequence" => "a list",
        "map" => "a table",
        other => other,
    };
    format!("expected {expected}, found {found}")
}
