//! The rows of a run: all in memory, or read while they are trained on.

use std::sync::Arc;

use super::save::Progress;
use crate::config::{DataSection, RunConfig, Validation};
use crate::data::{
    ChatTokenizer, Dataset, HeldOut, Loader, LoaderOptions, LoaderState, PrefetchingLoader, Splits,
    StreamOptions, StreamingLoader,
};
use crate::error::{Error, Result, ResultExt};

/// Windows prepared while a step runs.
const PREFETCHED_WINDOWS: usize = 2;

/// What a run trains and validates on.
pub(super) struct Rows {
    pub loader: PrefetchingLoader,
    /// Examples; 0 where they are streamed, and so not counted.
    pub count: usize,
    pub validation: Option<Dataset>,
    /// Tokens of the longest sequence that a batch may hold.
    pub longest: usize,
    pub notices: Vec<String>,
}

impl Rows {
    /// Reads what has to be read of `data` before the first step, at the beginning or where `saved` stands. `counted` is told how
    /// many rows that are.
    ///
    /// # Errors
    /// A row cannot be read or tokenized or does not fit the model, or the saved position is not one in these rows.
    pub fn open(
        config: &RunConfig,
        data: &DataSection,
        tokenizer: Option<&Arc<ChatTokenizer>>,
        vocab_size: usize,
        saved: Option<&Progress>,
        counted: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Self> {
        let state = saved.map(saved_state).transpose()?;
        let rows = if data.streaming {
            Self::streamed(config, data, tokenizer, vocab_size, state.as_ref(), counted)?
        } else {
            Self::in_memory(config, data, tokenizer.map(AsRef::as_ref), vocab_size, state, counted)?
        };
        rows.validation.as_ref().map_or(Ok(()), |rows| rows.check_vocabulary(vocab_size))?;
        Ok(rows)
    }

    fn in_memory(
        config: &RunConfig,
        data: &DataSection,
        tokenizer: Option<&ChatTokenizer>,
        vocab_size: usize,
        state: Option<LoaderState>,
        counted: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Self> {
        let Splits { train, validation } = Splits::load(data, tokenizer, counted)?;
        train.check_vocabulary(vocab_size)?;
        let notices = notices(&train, validation.as_ref(), &data.validation);
        let (count, train, options) = (train.len(), Arc::new(train), options(config));
        let loader = match state {
            None => Loader::new(train, options)?,
            Some(state) => Loader::from_state(train, options, state)?,
        };
        let longest = loader.longest();
        let loader = PrefetchingLoader::new(loader, PREFETCHED_WINDOWS)?;
        Ok(Self { loader, count, validation, longest, notices })
    }

    fn streamed(
        config: &RunConfig,
        section: &DataSection,
        tokenizer: Option<&Arc<ChatTokenizer>>,
        vocab_size: usize,
        state: Option<&LoaderState>,
        counted: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Self> {
        let HeldOut { validation, hashes } = held_out(section, tokenizer.map(AsRef::as_ref), counted)?;
        let mut notices = vec![format!(
            "rows are read while they are trained on, {} examples at a time (data.shuffle_buffer)",
            section.shuffle_buffer
        )];
        if section.validation == Validation::Auto && validation.is_empty() {
            notices.push("no row is held out for validation: data.validation_fraction chooses none".into());
        }
        notices.extend(validation.notices().into_iter().map(|notice| format!("validation: {notice}")));
        let options = StreamOptions {
            section: section.clone(),
            loader: options(config),
            vocab_size,
            held_out: Arc::new(hashes),
        };
        let loader = StreamingLoader::new(options, tokenizer.cloned(), state)
            .context(|| "while reading the training data".to_owned())?;
        let loader = PrefetchingLoader::streaming(loader, PREFETCHED_WINDOWS)?;
        let validation = (!validation.is_empty()).then_some(validation);
        Ok(Self { loader, count: 0, validation, longest: section.max_length, notices })
    }
}

fn held_out(
    section: &DataSection,
    tokenizer: Option<&ChatTokenizer>,
    counted: &mut dyn FnMut(usize),
) -> Result<HeldOut> {
    match &section.validation {
        Validation::None => Ok(HeldOut::default()),
        Validation::Auto => HeldOut::find(&section.train, tokenizer, section, counted),
        Validation::Files(files) => {
            let validation = Dataset::load(files, tokenizer, section, counted)
                .context(|| "while loading the validation data".to_owned())?;
            Ok(HeldOut { validation, ..HeldOut::default() })
        }
    }
}

/// What happened to rows, and a warning about those on both sides.
fn notices(train: &Dataset, validation: Option<&Dataset>, from: &Validation) -> Vec<String> {
    let mut notices = train.notices();
    if let Some(validation) = validation {
        // Rows held out of the training files are counted with those.
        if matches!(from, Validation::Files(_)) {
            notices.extend(validation.notices().into_iter().map(|notice| format!("validation: {notice}")));
        }
        notices.extend(train.leak_notice(validation));
    }
    notices
}

fn options(config: &RunConfig) -> LoaderOptions {
    LoaderOptions {
        batch_size: config.train.batch_size,
        gradient_accumulation_steps: config.train.gradient_accumulation_steps,
        shuffle: config.data.shuffle,
        packing: config.data.packing,
        seed: config.train.seed,
        max_length: config.data.max_length,
    }
}

fn saved_state(saved: &Progress) -> Result<LoaderState> {
    serde_json::from_value(saved.loader.clone())
        .map_err(|error| Error::data(format!("the checkpoint's data position is damaged: {error}")))
}
