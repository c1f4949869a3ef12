//! Files of data sets on the Hugging Face hub, as its own tools write them.

/// `hf://datasets/owner/name[@revision]/path`, where the path may be a glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFiles {
    /// `owner/name`
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Path or glob inside the repository.
    pub pattern: String,
}

impl HubFiles {
    /// What every name begins with.
    pub const PREFIX: &str = "hf://";

    /// Takes a name apart.
    ///
    /// # Errors
    /// Says in one line what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "write hf://datasets/owner/name/path/*.jsonl";
        let inside = text.strip_prefix(Self::PREFIX).and_then(|rest| rest.strip_prefix("datasets/"));
        let rest = inside.ok_or_else(|| format!("only data sets of the hub can be read: {form}"))?;
        let mut parts = rest.splitn(3, '/');
        let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let pattern = parts.next().unwrap_or_default();
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        // A slash in a branch's name is written as the hub's tools do.
        let revision = revision.replace("%2F", "/");
        let repository = format!("{owner}/{name}");
        if !is_hub_name(&repository) {
            return Err(format!("{repository:?} is no name of a data set: {form}"));
        }
        if pattern.is_empty() || pattern.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(format!("this names no files of the data set: {form}"));
        }
        if revision.is_empty() || revision.contains("..") || revision.contains(char::is_whitespace) {
            return Err(format!("{revision:?} is not a branch, tag or commit"));
        }
        Ok(Self { repository, revision, pattern: pattern.to_owned() })
    }
}

/// `owner/name` as the hub allows it: letters, digits, `-`, `_` and `.`, no leading dot.
pub(in crate::config) fn is_hub_name(text: &str) -> bool {
    let part = |part: &str| {
        (1..=96).contains(&part.len())
            && !part.starts_with('.')
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let files = HubFiles::parse("hf://datasets/org/set@refs%2Fpr%2F1/data/train-*.parquet").unwrap();
        assert_eq!((&*files.repository, &*files.revision), ("org/set", "refs/pr/1"));
        assert_eq!(files.pattern, "data/train-*.parquet");
        assert_eq!(HubFiles::parse("hf://datasets/org/set/a.jsonl").unwrap().revision, "main");
        for (text, part) in [
            ("hf://org/model/a.jsonl", "only data sets"),
            ("hf://datasets/set/a.jsonl", "names no files"),
            ("hf://datasets/org/set", "names no files"),
            ("hf://datasets/org/set/../a", "names no files"),
            ("hf://datasets/or g/set/a", "is no name"),
            ("hf://datasets/org/set@/a", "is not a branch"),
        ] {
            let error = HubFiles::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
