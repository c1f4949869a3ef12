//! Feed-forwards of experts, of which a router chooses some for each token (Shazeer et al. 2017, arXiv:1701.06538).

use super::parameters::{Parameters, master};
use super::spec::DecoderSpec;
use crate::adapter::expert_path;
use crate::graph::{LazyTensor, RouteSide};

/// A mixture of experts as numbers and names.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertSpec {
    pub count: usize,
    /// Experts of one token.
    pub chosen: usize,
    /// Width of one expert.
    pub intermediate: usize,
    /// The weights of a token's experts are scaled to sum to 1.
    pub normalized: bool,
    /// What holds router and experts in a layer: `mlp`.
    pub block: &'static str,
    /// Names of an expert's gate, up and down projections.
    pub names: [&'static str; 3],
    /// For each layer, whether it has experts instead of one feed-forward.
    pub layers: Vec<bool>,
}

impl ExpertSpec {
    /// Name, inputs and outputs of an expert's projections.
    pub fn projections(&self, hidden: usize) -> [(&'static str, usize, usize); 3] {
        let [gate, up, down] = self.names;
        let inner = self.intermediate;
        [(gate, hidden, inner), (up, hidden, inner), (down, inner, hidden)]
    }

    /// The path of a projection in all experts of a layer, where `*` stands for an expert's number.
    pub fn path(&self, layer: usize, name: &str) -> String {
        format!("model.layers.{layer}.{}.experts.*.{name}", self.block)
    }

    /// The router's weight, [count, hidden].
    pub fn router(&self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.gate.weight", self.block)
    }
}

impl DecoderSpec {
    /// The experts of a layer that has them.
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertSpec> {
        self.experts.as_ref().filter(|experts| experts.layers.get(layer) == Some(&true))
    }

    /// [n, hidden] -> [n, hidden]. Only the pairs of a token and an expert that it goes to are computed.
    pub(super) fn mixture(
        &self,
        parameters: &Parameters<'_>,
        experts: &ExpertSpec,
        x: &LazyTensor,
        layer: usize,
    ) -> LazyTensor {
        let (tokens, count) = (x.shape().rows(), experts.count);
        let router = parameters.weight(&experts.router(layer), &[count, self.hidden]);
        let scores = softmax(&x.linear(&router).cast(master(parameters.dtype))); // [n, experts]
        let token_of = scores.route(experts.chosen, RouteSide::Tokens); // [n * chosen]
        let expert_of = scores.route(experts.chosen, RouteSide::Experts);
        let mut weights = scores.embedding(&token_of).take_last(&expert_of); // [n * chosen, 1]
        if experts.normalized {
            let sums = weights.scatter_rows(&token_of, tokens); // [n, 1]
            weights = weights.over(&sums.embedding(&token_of));
        }
        let project = |x: &LazyTensor, (name, inner, out): (&str, usize, usize)| {
            parameters.expert_linear(x, &expert_of, &experts.path(layer, name), [count, out, inner])
        };
        let [gate, up, down] = experts.projections(self.hidden);
        let rows = x.embedding(&token_of); // [n * chosen, hidden]
        let y = project(&project(&rows, gate).swiglu(&project(&rows, up)), down);
        y.times(&weights.cast(parameters.dtype).broadcast_to(y.dims())).scatter_rows(&token_of, tokens)
    }
}

impl Parameters<'_> {
    /// Each row of x [n, in] through the matrix of its expert, with the low-rank part where experts have an adapter. `dims`
    /// are the number of experts, outputs and inputs.
    #[track_caller]
    fn expert_linear(
        &self,
        x: &LazyTensor,
        expert_of: &LazyTensor,
        path: &str,
        dims: [usize; 3],
    ) -> LazyTensor {
        let y = x.expert_linear(&self.expert_weights(path, dims), expert_of);
        let Some((_, adapted)) = self.adapter(path) else { return y };
        let a = self.pair_value(&adapted.a_name(), &adapted.a_dims()).cast(self.dtype);
        let b = self.pair_value(&adapted.b_name(), &adapted.b_dims()).cast(self.dtype);
        let low = x.expert_linear(&a, expert_of).expert_linear(&b, expert_of);
        y.plus(&low.affine(adapted.scale, 0.0))
    }

    /// The matrices of all experts, [experts, out, in]: one frozen weight, or those of each expert where they are trained.
    fn expert_weights(&self, path: &str, dims: [usize; 3]) -> LazyTensor {
        let [count, out, inner] = dims;
        let name = |expert| format!("{}.weight", expert_path(path, expert));
        if !(0..count).any(|expert| self.trains(&name(expert))) {
            return self.weight(&format!("{path}.weight"), &dims);
        }
        let each: Vec<_> = (0..count).map(|expert| self.weight(&name(expert), &[out, inner])).collect();
        let others: Vec<&LazyTensor> = each.iter().skip(1).collect();
        each[0].concat(0, &others).reshape(&dims)
    }
}

/// Over the last axis of [n, m].
fn softmax(x: &LazyTensor) -> LazyTensor {
    // The shift cancels out, and so would its gradient.
    let powers = x.minus(&x.max(1).detach().broadcast_to(x.dims())).exp();
    powers.over(&powers.sum(1).broadcast_to(x.dims()))
}
