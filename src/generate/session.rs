//! Prefill, decode, stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sampler::{Sampler, Sampling};
use crate::error::{Error, Result};
use crate::executor::{AsyncGraphExecutor, HostTensor, StepInputs};
use crate::graph::{ComputationGraph, DType};
use crate::model::{DecoderSpec, Parameters, Tokens, Trained};
use crate::plan::{Plan, PlanKey, compile};

/// Shortest prompt length that gets a plan of its own; longer ones are padded to powers of two.
const SHORTEST_PREFILL: usize = 16;

/// Generates with a model whose weights the executor already holds.
pub struct Generator<'a> {
    pub executor: &'a AsyncGraphExecutor,
    pub decoder: &'a DecoderSpec,
    /// With or without adapters.
    pub trained: &'a Trained,
    /// Whether the values of the adapter's pairs stay as they are from here on: what follows from them alone is then
    /// computed once.
    pub settled: bool,
    pub dtype: DType,
    /// Tokens that end the text.
    pub stop: &'a [u32],
}

/// Generated tokens, and how long they took.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedText {
    /// Without the token that ended it.
    pub tokens: Vec<u32>,
    /// Whether a stop token, and not the limit, ended the text.
    pub finished: bool,
    pub took: Duration,
}

impl Generator<'_> {
    /// Continues `prompt` by at most `max_tokens` tokens, handing each to `each` as it comes.
    ///
    /// # Errors
    /// A user error for an empty prompt; a device error if a kernel fails.
    pub async fn generate(
        &self,
        prompt: &[u32],
        max_tokens: usize,
        sampling: Sampling,
        each: &mut (dyn FnMut(u32) + Send),
    ) -> Result<GeneratedText> {
        let Some((&last, _)) = prompt.split_last() else {
            return Err(Error::user("the prompt is empty").hint("give at least one token of text"));
        };
        let start = Instant::now();
        let padded = prompt.len().next_power_of_two().max(SHORTEST_PREFILL);
        let capacity = (padded + max_tokens).next_multiple_of(64);
        self.reserve(capacity).await?;
        let mut sampler = Sampler::new(sampling);
        let mut ids = prompt.to_vec();
        ids.resize(padded, last);
        let mut logits = self.run(padded, capacity, ids, 0, prompt.len() - 1).await?;
        let mut text = GeneratedText { tokens: Vec::new(), finished: false, took: Duration::ZERO };
        for position in prompt.len()..prompt.len() + max_tokens {
            let token = sampler.next(&logits);
            if self.stop.contains(&token) {
                text.finished = true;
                break;
            }
            text.tokens.push(token);
            each(token);
            logits = self.run(1, capacity, vec![token], position, 0).await?;
        }
        text.took = start.elapsed();
        Ok(text)
    }

    /// Empties the caches, or creates them at this size.
    async fn reserve(&self, capacity: usize) -> Result<()> {
        let width = self.decoder.kv_heads * self.decoder.head_dim;
        let empty = HostTensor::f32(&[capacity, width], vec![0.0; capacity * width])?.to_dtype(self.dtype);
        let names = (0..self.decoder.layers())
            .flat_map(|layer| ["k", "v"].map(|part| format!("cache.{layer}.{part}")));
        self.executor.set_states(names.map(|name| (name, empty.clone())).collect()).await
    }

    /// Logits [vocab] after token `wanted` of `ids`, which stand from position `start` on.
    async fn run(
        &self,
        seq: usize,
        capacity: usize,
        ids: Vec<u32>,
        start: usize,
        wanted: usize,
    ) -> Result<Vec<f32>> {
        let position = |offset: usize| {
            u32::try_from(start + offset)
                .map_err(|_| Error::user(format!("position {start} is beyond any context")))
        };
        let positions = (0..seq).map(position).collect::<Result<Vec<_>>>()?;
        let inputs = StepInputs::from([
            ("input_ids".to_owned(), HostTensor::u32(&[seq], ids)?),
            ("positions".to_owned(), HostTensor::u32(&[seq], positions)?),
            ("start".to_owned(), HostTensor::u32(&[1], vec![position(0)?])?),
            ("wanted".to_owned(), HostTensor::u32(&[1], vec![u32::try_from(wanted).unwrap_or(0)])?),
        ]);
        let outcome = self.executor.run(self.plan(seq, capacity)?, inputs).await?;
        let logits =
            outcome.outputs.into_iter().next().ok_or_else(|| Error::internal("no logits came back"))?;
        Ok(logits.into_f32())
    }

    fn plan(&self, seq: usize, capacity: usize) -> Result<Arc<Plan>> {
        let Self { decoder, trained, settled, dtype, .. } = self;
        let program = format!("generate {decoder:?} {trained:?} {settled} {dtype}");
        let program = *blake3::hash(program.as_bytes()).as_bytes();
        let device = self.executor.device_name().to_owned();
        let key = PlanKey { program, shape: (seq, capacity), device, memory_budget: None };
        self.executor.plan(&key, |target| {
            let graph = ComputationGraph::new();
            let parameters = Parameters::new(&graph, self.trained, self.dtype, None);
            let parameters = if self.settled { parameters.settled() } else { parameters };
            let tokens = Tokens::cached(&graph, seq, capacity);
            let hidden = self.decoder.hidden_states(&parameters, &tokens);
            let wanted = hidden.embedding(&graph.input("wanted", &[1], DType::U32));
            let logits = self.decoder.logits(&parameters, &wanted);
            let mut graph = graph.freeze(&[logits])?;
            graph = crate::passes::decompose(&graph, &|operation| target.lacks_kernel(operation))?;
            compile(graph, 1, target)
        })
    }
}
