//! Tokens that a run adds to a tokenizer's vocabulary.

use std::collections::BTreeMap;
use std::path::Path;

use tokenizers::{AddedToken, Tokenizer};

use super::source::{ModelSource, TokenizerSource};
use crate::error::{Error, Result};

/// A token that is matched in text as it is written, before anything else is made of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    pub text: String,
    /// Left out of decoded text.
    pub special: bool,
}

/// Reads a `tokenizer.json`.
///
/// # Errors
/// A data error if it is missing or damaged.
pub(super) fn read(path: &Path) -> Result<Tokenizer> {
    Tokenizer::from_file(path)
        .map_err(|error| Error::data(format!("cannot read {}: {error}", path.display())))
}

/// Adds those tokens that the vocabulary lacks, with the next free ids. Returns the ids of all `tokens`, in order.
///
/// # Errors
/// An internal error if the tokenizer refuses one.
pub(super) fn add_to(tokenizer: &mut Tokenizer, tokens: &[NewToken]) -> Result<Vec<u32>> {
    let refused = |text: &str| Error::internal(format!("the tokenizer does not take the token {text:?}"));
    let mut ids = Vec::new();
    for NewToken { text, special } in tokens {
        if tokenizer.token_to_id(text).is_none() {
            let token = AddedToken::from(text.as_str(), *special).normalized(false);
            let added =
                if *special { tokenizer.add_special_tokens([token]) } else { tokenizer.add_tokens([token]) };
            added.map_err(|_| refused(text))?;
        }
        ids.push(tokenizer.token_to_id(text).ok_or_else(|| refused(text))?);
    }
    Ok(ids)
}

/// What has been added to `larger` and is not in `smaller`, with its ids in order.
pub(super) fn added_since(smaller: &Tokenizer, larger: &Tokenizer) -> Vec<(u32, NewToken)> {
    let mut added: Vec<_> = larger.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    let lacking = added.into_iter().filter(|(_, token)| smaller.token_to_id(&token.content).is_none());
    lacking.map(|(id, token)| (id, NewToken { text: token.content, special: token.special })).collect()
}

impl ModelSource {
    /// Adds tokens to the tokenizer where it lacks them, and rows for them to the token table and the head where those
    /// have none to spare. Returns the ids of all `tokens`.
    ///
    /// # Errors
    /// A data error if there is no tokenizer.
    pub fn with_tokens(mut self, tokens: &[NewToken]) -> Result<(Self, Vec<u32>)> {
        let mut tokenizer = self.read_tokenizer()?;
        let ids = add_to(&mut tokenizer, tokens)?;
        match &mut self.tokenizer {
            TokenizerSource::Folder(_) => self.added.extend_from_slice(tokens),
            TokenizerSource::Gguf(gguf) => {
                let text = tokenizer.to_string(false);
                gguf.tokenizer_json = text.map_err(|error| Error::internal(error.to_string()))?;
                gguf.tokenizer = tokenizer;
            }
        }
        let rows = ids.iter().max().map_or(0, |&id| id as usize + 1);
        Ok((self.grown(rows, BTreeMap::new()), ids))
    }

    /// Adds the tokens that a larger tokenizer in `folder` has; nothing if there is none.
    ///
    /// # Errors
    /// A data error if a tokenizer is damaged, or if that one has other ids.
    pub fn with_tokens_of(self, folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let Some(own) = self.read_tokenizer().ok().filter(|_| path.exists()) else { return Ok(self) };
        let (ids, tokens): (Vec<u32>, Vec<NewToken>) = added_since(&own, &read(&path)?).into_iter().unzip();
        if tokens.is_empty() {
            return Ok(self);
        }
        let (source, found) = self.with_tokens(&tokens)?;
        if found == ids {
            return Ok(source);
        }
        Err(Error::data(format!("{} adds tokens to another tokenizer than the model's", path.display()))
            .hint("the adapter belongs to another base model"))
    }

    /// The tokenizer, with the tokens that were added to it.
    ///
    /// # Errors
    /// A data error if it is missing or damaged.
    pub fn read_tokenizer(&self) -> Result<Tokenizer> {
        match &self.tokenizer {
            TokenizerSource::Gguf(gguf) => Ok(gguf.tokenizer.clone()),
            TokenizerSource::Folder(folder) => {
                let mut tokenizer = read(&folder.join("tokenizer.json"))?;
                add_to(&mut tokenizer, &self.added)?;
                Ok(tokenizer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer");
        Tokenizer::from_file(folder.join("tokenizer.json")).unwrap()
    }

    fn token(text: &str, special: bool) -> NewToken {
        NewToken { text: text.into(), special }
    }

    #[test]
    fn only_what_is_lacking_is_added() {
        let (base, mut tokenizer) = (tokenizer(), tokenizer());
        let size = u32::try_from(base.get_vocab_size(true)).unwrap();
        let tokens = [token("<tool>", false), token("<|im_end|>", true), token("<end tool>", true)];
        let known = base.token_to_id("<|im_end|>").unwrap();
        assert_eq!(add_to(&mut tokenizer, &tokens).unwrap(), [size, known, size + 1]);
        assert_eq!(add_to(&mut tokenizer, &tokens).unwrap(), [size, known, size + 1]);
        assert_eq!(
            added_since(&base, &tokenizer),
            [(size, tokens[0].clone()), (size + 1, tokens[2].clone())]
        );
        let ids = tokenizer.encode("a<tool>b<end tool>", false).unwrap().get_ids().to_vec();
        assert_eq!(ids.iter().filter(|&&id| id >= size).collect::<Vec<_>>(), [&size, &(size + 1)]);
        assert!(tokenizer.decode(&ids, true).unwrap().contains("<tool>"));
        assert!(!tokenizer.decode(&ids, true).unwrap().contains("<end tool>"));
    }
}
