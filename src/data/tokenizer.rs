//! A tokenizer together with its chat template and special tokens.

use super::message::Message;
use super::special_tokens::{SpecialTokens, read_json, read_optional};
use super::template::ChatTemplate;
use crate::error::{Error, Result, ResultExt};
use serde_json::Value;
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use tokenizers::Tokenizer;

/// What templates take for the present, 26 July 2024 in seconds since 1970, unless told otherwise. A fixed date keeps
/// the rows of a run the same when it is resumed or repeated on another day.
const DEFAULT_CLOCK: u64 = 1_721_952_000;

/// Turns text and conversations into token ids, and back.
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    special: SpecialTokens,
    /// Added tokens with the special flag, and the ends of sequence.
    special_ids: HashSet<u32>,
    bos_id: Option<u32>,
    /// The `eos` token first.
    end_of_sequence_ids: Vec<u32>,
    /// What `strftime_now` reads in templates, in seconds since 1970.
    clock: u64,
}

/// Token ids with the bytes of the text that each stands for.
pub(crate) struct Encoded {
    /// `[length]`
    pub ids: Vec<u32>,
    /// `[length]`
    pub ranges: Vec<Range<usize>>,
}

impl ChatTokenizer {
    /// Reads the tokenizer files of a Hugging Face model folder.
    ///
    /// # Errors
    /// `tokenizer.json` is missing or damaged, or a file beside it is.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).context(|| format!("while reading {}", path.display())).map_err(
            |error| {
                error
                    .hint("the model folder needs a tokenizer.json; transformers' save_pretrained writes one")
            },
        )?;
        let tokenizer = Tokenizer::from_bytes(&bytes)
            .map_err(|error| Error::data(format!("not a tokenizer: {error}")))
            .context(|| format!("while reading {}", path.display()))?;
        let special = SpecialTokens::from_folder(folder)?;
        let template = folder_template(folder)?;
        Self::from_parts(tokenizer, template, special)
            .context(|| format!("while reading {}", folder.display()))
    }

    /// Puts a tokenizer together from parts that were read elsewhere, such as from a GGUF file.
    ///
    /// # Errors
    /// The template has a syntax error.
    pub fn from_parts(
        mut tokenizer: Tokenizer,
        template: Option<String>,
        special: SpecialTokens,
    ) -> Result<Self> {
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| Error::internal(error.to_string()))?;
        let id_of = |token: &Option<String>| token.as_deref().and_then(|token| tokenizer.token_to_id(token));
        let bos_id = id_of(&special.bos);
        let mut end_of_sequence_ids: Vec<u32> = id_of(&special.eos).into_iter().collect();
        for &id in &special.end_of_sequence_ids {
            if !end_of_sequence_ids.contains(&id) {
                end_of_sequence_ids.push(id);
            }
        }
        let added = tokenizer.get_added_tokens_decoder();
        let special_ids = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id);
        let special_ids = special_ids.chain(end_of_sequence_ids.iter().copied()).collect();
        let clock = DEFAULT_CLOCK;
        let template = template.map(|source| ChatTemplate::new(&source, &special, clock)).transpose()?;
        Ok(Self { tokenizer, template, special, special_ids, bos_id, end_of_sequence_ids, clock })
    }

    /// Takes another tokenizer, with a larger vocabulary, to the same template.
    ///
    /// # Errors
    /// The template does not compile.
    pub fn with_tokenizer(self, tokenizer: Tokenizer) -> Result<Self> {
        Self::from_parts(tokenizer, self.template.map(|template| template.source().to_owned()), self.special)
    }

    /// Replaces the chat template by the one in a file.
    ///
    /// # Errors
    /// The file cannot be read or has a syntax error.
    pub fn with_template_file(mut self, path: &Path) -> Result<Self> {
        let doing = || format!("while reading the chat template {}", path.display());
        let source = std::fs::read_to_string(path).context(doing)?;
        self.template = Some(ChatTemplate::new(&source, &self.special, self.clock).context(doing)?);
        Ok(self)
    }

    /// Sets the time that templates read, in seconds since 1970; generation wants the present, training a fixed date.
    ///
    /// # Errors
    /// The template does not compile.
    pub fn with_clock(mut self, seconds: u64) -> Result<Self> {
        self.clock = seconds;
        if let Some(template) = &self.template {
            self.template = Some(ChatTemplate::new(template.source(), &self.special, seconds)?);
        }
        Ok(self)
    }

    /// The time that templates read, in seconds since 1970.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The chat template.
    ///
    /// # Errors
    /// The model has none.
    pub fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().ok_or_else(|| {
            Error::data("the model has no chat template, which conversations need").hint(
                "set data.chat_template to a Jinja file, or use \"prompt\"/\"completion\" or \"text\" rows",
            )
        })
    }

    /// Prints a conversation with the chat template; see [`ChatTemplate::render`].
    ///
    /// # Errors
    /// There is no template, or it refuses the conversation.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        self.template()?.render(messages, tools, add_generation_prompt)
    }

    /// Token ids of text that holds its own special tokens, such as a rendered conversation.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_ranges(text)?.ids)
    }

    /// Token ids of plain text, with `bos` in front where the tokenizer uses one and without `eos`.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode_with_bos(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_ranges_with_bos(text)?.ids)
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|error| Error::data(format!("cannot decode tokens: {error}")))
    }

    /// Text of token ids, special tokens included.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer
            .decode(ids, false)
            .map_err(|error| Error::data(format!("cannot decode tokens: {error}")))
    }

    /// Ids that end an answer; `eos` comes first.
    pub fn end_of_sequence_ids(&self) -> &[u32] {
        &self.end_of_sequence_ids
    }

    /// The id appended to rows that do not end themselves.
    pub fn eos_id(&self) -> Option<u32> {
        self.end_of_sequence_ids.first().copied()
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special_ids.contains(&id)
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        let vocabulary = self.tokenizer.get_vocab(true);
        vocabulary.values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The tokenizer itself, for writing `tokenizer.json`.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Changes with everything that decides the tokens of a row; `None` for a tokenizer that cannot be written down.
    pub(crate) fn fingerprint(&self) -> Option<[u8; blake3::OUT_LEN]> {
        let mut hasher = blake3::Hasher::new();
        let template = self.template.as_ref().map(ChatTemplate::source);
        let rest = format!("{template:?} {:?} {}", self.special, self.clock);
        hasher.update(self.tokenizer.to_string(false).ok()?.as_bytes());
        hasher.update(rest.as_bytes());
        Some(*hasher.finalize().as_bytes())
    }

    pub(crate) fn encode_ranges(&self, text: &str) -> Result<Encoded> {
        self.encode_text(text, false)
    }

    pub(crate) fn encode_ranges_with_bos(&self, text: &str) -> Result<Encoded> {
        let mut encoded = self.encode_text(text, self.special.add_bos != Some(false))?;
        let ends_itself = encoded.ids.last().is_some_and(|id| self.end_of_sequence_ids.contains(id));
        if ends_itself && encoded.ranges.last().is_some_and(Range::is_empty) {
            encoded.ids.pop();
            encoded.ranges.pop();
        }
        if let (Some(true), Some(bos)) = (self.special.add_bos, self.bos_id)
            && encoded.ids.first() != Some(&bos)
        {
            encoded.ids.insert(0, bos);
            encoded.ranges.insert(0, 0..0);
        }
        Ok(encoded)
    }

    fn encode_text(&self, text: &str, add_special_tokens: bool) -> Result<Encoded> {
        let encoding = self
            .tokenizer
            .encode(text, add_special_tokens)
            .map_err(|error| Error::data(format!("the tokenizer refuses the text: {error}")))?;
        let ids = encoding.get_ids().to_vec();
        Ok(Encoded { ranges: covered_ranges(encoding.get_offsets()), ids })
    }
}

/// Byte-level tokenizers report offsets without the spaces around a token, and give every token of a split character
/// the whole character. Here each range starts where the one before it ended, so that no byte is lost.
fn covered_ranges(offsets: &[(usize, usize)]) -> Vec<Range<usize>> {
    let mut end = 0;
    let covered = offsets.iter().map(|&(token_start, token_end)| {
        let start = token_start.min(end);
        end = end.max(token_end);
        // Inserted tokens such as bos have empty offsets at zero and must not reach back over the text.
        if token_start == token_end && token_end == 0 { end..end } else { start..end }
    });
    covered.collect()
}

/// The template in `chat_template.jinja`, else in `chat_template.json`, else in `tokenizer_config.json`, where it is
/// text or a list of named templates.
fn folder_template(folder: &Path) -> Result<Option<String>> {
    if let Some(source) = read_optional(&folder.join("chat_template.jinja"))? {
        return Ok(Some(source));
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        let path = folder.join(name);
        let Some(file) = read_json(&path)? else { continue };
        match file.get("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(source)) => return Ok(Some(source.clone())),
            Some(Value::Array(named)) => {
                let named_default =
                    named.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"));
                let entry = named_default.or(named.first()).and_then(|entry| entry.get("template"));
                return Ok(entry.and_then(Value::as_str).map(str::to_owned));
            }
            Some(_) => {
                return Err(Error::data(format!("chat_template in {} is not text", path.display())));
            }
        }
    }
    Ok(None)
}
