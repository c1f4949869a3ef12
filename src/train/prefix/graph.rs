//! The graphs on both sides of the prefix's end.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::executor::AsyncGraphExecutor;
use crate::graph::{ComputationGraph, LazyTensor, Operation};
use crate::model::{Parameters, Tokens, Trained};
use crate::passes::decompose;
use crate::plan::{Plan, PlanKey, Target, compile};
use crate::train::{PlannedMemory, StepBuilder};

/// The input of a step that begins at a layer.
pub const PREFIX_HIDDEN: &str = "prefix_hidden";

/// Where a step's graph begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// With the input `input_ids`.
    Tokens,
    /// With the input [`PREFIX_HIDDEN`] [n, hidden] in the model's dtype: what enters this layer.
    Layer(usize),
}

impl StepBuilder {
    /// How many layers, from layer 0 on, lie below everything that is trained.
    pub fn frozen_layers(&self) -> usize {
        let layers = self.decoder.layers();
        match &self.trained {
            Trained::All => 0,
            Trained::Nothing => layers,
            Trained::Adapters(adaptation) => adaptation.lowest_layer(layers),
        }
    }

    /// Bytes of one token's hidden states.
    pub fn token_bytes(&self) -> usize {
        self.decoder.hidden * self.dtype.size_in_bytes()
    }

    /// The plan that gives what leaves the lowest `layers` layers for a batch of `rows` rows of `sequence` tokens, from
    /// the executor's cache if it is there. Inputs are those of [`Tokens::packed`]; its output is [n, hidden].
    ///
    /// # Errors
    /// A shape error if the model's description does not fit together.
    pub fn prefix_plan(
        &self,
        executor: &AsyncGraphExecutor,
        layers: usize,
        rows: usize,
        sequence: usize,
    ) -> Result<Arc<Plan>> {
        let device = executor.device_name().to_owned();
        let program = self.fingerprint(&("prefix", layers));
        let key = PlanKey { program, shape: (rows, sequence), device, memory_budget: None };
        executor.plan(&key, |target| self.prefix(layers, rows, sequence, target))
    }

    /// Bytes of the weights that only the layers below a step read.
    pub(in crate::train) fn weights_below(&self, source: Source, target: &dyn Target) -> Result<usize> {
        let Source::Layer(layers) = source else { return Ok(0) };
        let planned = PlannedMemory::of(&self.prefix(layers, 1, 1, target)?, target);
        Ok(planned.weights + planned.packed_weights)
    }

    fn prefix(&self, layers: usize, rows: usize, sequence: usize, target: &dyn Target) -> Result<Plan> {
        if layers > self.frozen_layers() {
            return Err(Error::internal(format!("the prefix of {layers} layers is not frozen")));
        }
        let graph = ComputationGraph::new();
        let parameters = Parameters::new(&graph, &self.trained, self.dtype, None);
        let tokens = Tokens::packed(&graph, rows, sequence, self.max_positions);
        let embedded = self.decoder.embedded(&parameters, &tokens);
        let hidden = self.decoder.through_layers(&parameters, &tokens, embedded, 0..layers);
        let lacks_kernel = |operation: &Operation| target.lacks_kernel(operation);
        compile(decompose(&graph.freeze(&[hidden])?, &lacks_kernel)?, 1, target)
    }

    /// The last hidden states after the final norm: [n, hidden].
    pub(in crate::train) fn hidden_states(
        &self,
        source: Source,
        parameters: &Parameters<'_>,
        tokens: &Tokens,
    ) -> LazyTensor {
        let decoder = &self.decoder;
        let (x, first) = match source {
            Source::Tokens => (decoder.embedded(parameters, tokens), 0),
            Source::Layer(layer) => {
                let dims = [tokens.batch * tokens.seq, decoder.hidden];
                (parameters.graph().input(PREFIX_HIDDEN, &dims, self.dtype), layer)
            }
        };
        let x = decoder.through_layers(parameters, tokens, x, first..decoder.layers());
        decoder.final_norm(parameters, &x)
    }
}
