//! `lazytune generate`

use super::arguments::GenerateArguments;
use super::printer::Printer;
use super::progress::downloads;
use crate::data::{ChatTokenizer, Message};
use crate::error::{Error, Result};
use crate::executor::AsyncGraphExecutor;
use crate::generate::{Generator, Sampling};
use crate::model::Trained;
use crate::train::model::{OpenModel, open_executor};

pub async fn run(arguments: &GenerateArguments, printer: &Printer) -> Result<()> {
    let sampling = sampling(arguments)?;
    let mut model = OpenModel::named(&arguments.model, Some(downloads(printer)))?;
    if let Some(folder) = &arguments.adapter {
        model = model.with_tokens_of(folder)?;
    }
    let tokenizer = model.tokenizer()?;
    let prompt = prompt(arguments, &tokenizer)?;
    known(&prompt, model.source.config.vocab_size)?;
    let limit = limit(arguments, &model, prompt.len())?;
    let executor = open_executor(crate::config::DeviceChoice::Auto, arguments.threads)?;
    executor.set_weights(model.weight_loader()).await?;
    let adapter = arguments.adapter.as_deref().map(|folder| model.adapter(folder)).transpose()?;
    let session =
        Session { limit, printer, model: &model, tokenizer: &tokenizer, executor: &executor, sampling };
    let Some((adapted, values)) = adapter else {
        return session.answer(&prompt, &Trained::Nothing).await;
    };
    if arguments.compare {
        printer.data("--- base");
        session.answer(&prompt, &Trained::Nothing).await?;
        printer.data("--- adapted");
    }
    // After the base model's answer: weights that the adapter stores in full have the names of the model's own.
    executor.set_states(values.into_iter().collect()).await?;
    session.answer(&prompt, &adapted).await
}

fn sampling(arguments: &GenerateArguments) -> Result<Sampling> {
    let GenerateArguments { temperature, top_p, seed, .. } = *arguments;
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return Err(Error::user(format!("--temperature is {temperature}, expected 0 or more")));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(Error::user(format!("--top-p is {top_p}, expected more than 0 and at most 1")));
    }
    Ok(Sampling { temperature, top_p, seed })
}

fn prompt(arguments: &GenerateArguments, tokenizer: &ChatTokenizer) -> Result<Vec<u32>> {
    if arguments.raw || !tokenizer.has_template() {
        return tokenizer.encode_with_bos(&arguments.prompt);
    }
    let system = arguments.system.iter().map(|text| Message::new("system", text.as_str()));
    let messages: Vec<Message> = system.chain([Message::new("user", arguments.prompt.as_str())]).collect();
    tokenizer.encode(&tokenizer.render(&messages, None, true)?)
}

fn known(prompt: &[u32], vocab_size: usize) -> Result<()> {
    match prompt.iter().find(|&&id| id as usize >= vocab_size) {
        None => Ok(()),
        Some(id) => Err(Error::data(format!(
            "the tokenizer makes token {id} of the prompt, but the model's vocabulary has {vocab_size} tokens"
        ))
        .hint("use the tokenizer that belongs to the model")),
    }
}

/// Tokens that the answer may have: as many as asked for, as far as the model's context reaches.
fn limit(arguments: &GenerateArguments, model: &OpenModel, prompt: usize) -> Result<usize> {
    let context = model.source.config.max_position_embeddings;
    match context.checked_sub(prompt) {
        Some(room) if room > 0 => Ok(arguments.max_tokens.min(room)),
        _ => Err(Error::user(format!(
            "the prompt has {prompt} tokens, the model's context has room for {context}"
        ))
        .hint("shorten the prompt")),
    }
}

struct Session<'a> {
    /// Longest answer, in tokens.
    limit: usize,
    printer: &'a Printer,
    model: &'a OpenModel,
    tokenizer: &'a ChatTokenizer,
    executor: &'a AsyncGraphExecutor,
    sampling: Sampling,
}

impl Session<'_> {
    /// Prints the answer as it comes.
    async fn answer(&self, prompt: &[u32], trained: &Trained) -> Result<()> {
        let generator = Generator {
            executor: self.executor,
            decoder: &self.model.decoder,
            trained,
            settled: true,
            dtype: self.model.dtype,
            stop: self.tokenizer.end_of_sequence_ids(),
        };
        let (mut tokens, mut shown) = (Vec::new(), 0);
        let mut each = |token: u32| {
            tokens.push(token);
            // A character may be split over tokens: what ends in the middle of one waits for the rest.
            if let Ok(text) = self.tokenizer.decode(&tokens)
                && !text.ends_with('\u{fffd}')
            {
                self.printer.data_part(text.get(shown..).unwrap_or_default());
                shown = text.len();
            }
        };
        let text = generator.generate(prompt, self.limit, self.sampling, &mut each).await?;
        self.printer.data("");
        let rate = text.tokens.len() as f64 / text.took.as_secs_f64().max(1e-9);
        self.printer.note(&format!("{} tokens, {rate:.1} tokens/s with the prompt", text.tokens.len()));
        Ok(())
    }
}
