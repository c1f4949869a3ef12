//! Attention and its gradient.

use lazytune::graph::{AttentionSpec, Operation, Scalar};
use lazytune::kernels::metal::launch;

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Buffer, Gpu, activations, no_floats, nothing};

struct Case {
    spec: AttentionSpec,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
    segments: Vec<u32>,
}

#[derive(Default)]
struct Reference {
    out: Vec<f64>,
    log_sum_exp: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn add_scaled(to: &mut [f64], factor: f64, values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += factor * f64::from(*value));
}

impl Case {
    /// Segments of 0, 1 and 2 within each row of the batch, ending within tiles.
    fn new(gpu: &Gpu, spec: AttentionSpec) -> Self {
        let n = spec.batch * spec.seq;
        let (wide, narrow) = (n * spec.heads * spec.head_dim, n * spec.kv_heads * spec.head_dim);
        let random = |n: usize, seed: u64| gpu.round(noise(n, seed));
        let segment = |token: usize| [0, 1, 1, 1, 2][token % spec.seq * 5 / spec.seq];
        Self {
            spec,
            q: gpu.round(noise(wide, 1).iter().map(|x| 3.0 * x).collect()),
            k: random(narrow, 2),
            v: random(narrow, 3),
            dout: random(wide, 4),
            segments: (0..n).map(segment).collect(),
        }
    }

    /// Where a head's vector of a token begins.
    fn query_at(&self, token: usize, head: usize) -> usize {
        (token * self.spec.heads + head) * self.spec.head_dim
    }

    fn key_at(&self, token: usize, head: usize) -> usize {
        let kv_head = head / (self.spec.heads / self.spec.kv_heads);
        (token * self.spec.kv_heads + kv_head) * self.spec.head_dim
    }

    /// Tokens that a query sees, with scores and the derivatives of their caps.
    fn scores(&self, token: usize, head: usize) -> Vec<(usize, f64, f64)> {
        let AttentionSpec { seq, head_dim, scale, window, soft_cap, .. } = self.spec;
        let start = (token / seq * seq).max((token + 1).saturating_sub(window.unwrap_or(usize::MAX)));
        let seen = (start..=token).filter(|&key| self.segments[key] == self.segments[token]);
        let score = |key: usize| {
            let q = &self.q[self.query_at(token, head)..][..head_dim];
            let score = scale.0 * dot(q, &self.k[self.key_at(key, head)..][..head_dim]);
            match soft_cap {
                Some(cap) => {
                    let ratio = (score / cap.0).tanh();
                    (key, cap.0 * ratio, 1.0 - ratio * ratio)
                }
                None => (key, score, 1.0),
            }
        };
        seen.map(score).collect()
    }

    fn reference(&self) -> Reference {
        let AttentionSpec { batch, seq, heads, head_dim, scale, .. } = self.spec;
        let (wide, narrow) = (vec![0.0; self.q.len()], vec![0.0; self.k.len()]);
        let mut all =
            Reference { out: wide.clone(), dq: wide, dk: narrow.clone(), dv: narrow, ..<_>::default() };
        for (token, head) in (0..batch * seq).flat_map(|token| (0..heads).map(move |head| (token, head))) {
            let scores = self.scores(token, head);
            let largest = scores.iter().fold(f64::MIN, |largest, score| largest.max(score.1));
            let sum = scores.iter().map(|score| (score.1 - largest).exp()).sum::<f64>();
            let log_sum_exp = largest + sum.ln();
            all.log_sum_exp.push(log_sum_exp);
            let (own, dout) = (self.query_at(token, head), self.query_at(token, head));
            let dout = &self.dout[dout..][..head_dim];
            let own = own..own + head_dim;
            let vector =
                |values: &'_ [f32], key: usize| values[self.key_at(key, head)..][..head_dim].to_vec();
            let terms: Vec<(usize, f64, f64, f64)> = scores
                .into_iter()
                .map(|(key, score, slope)| {
                    (key, (score - log_sum_exp).exp(), slope, dot(dout, &vector(&self.v, key)))
                })
                .collect();
            let delta: f64 = terms.iter().map(|(_, p, _, dp)| p * dp).sum();
            for (key, p, slope, dp) in terms {
                let at = self.key_at(key, head)..self.key_at(key, head) + head_dim;
                add_scaled(&mut all.out[own.clone()], p, &vector(&self.v, key));
                let ds = p * (dp - delta) * slope * scale.0;
                add_scaled(&mut all.dq[own.clone()], ds, &vector(&self.k, key));
                add_scaled(&mut all.dk[at.clone()], ds, &self.q[own.clone()]);
                add_scaled(&mut all.dv[at], p, dout);
            }
        }
        all
    }

    fn qkv(&self) -> [Buffer; 4] {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|values| activations(values));
        [q, k, v, Buffer::U32(self.segments.clone())]
    }

    /// Out and the log-sum-exp.
    fn run_forward(&self, gpu: &Gpu) -> Result<[Buffer; 2], String> {
        let mut buffers = self.qkv().to_vec();
        buffers.extend([nothing(self.q.len()), no_floats(self.segments.len() * self.spec.heads)]);
        gpu.run(&launch::attention(&self.spec), &mut buffers)?;
        Ok([4, 5].map(|i| buffers[i].clone()))
    }

    /// The CPU's operands: queries, keys and their like, numbers of tokens, and of heads.
    fn dims(&self) -> [[usize; 2]; 3] {
        let AttentionSpec { batch, seq, heads, kv_heads, head_dim, .. } = self.spec;
        let n = batch * seq;
        [[n, heads * head_dim], [n, kv_heads * head_dim], [n, heads]]
    }
}

/// (batch, seq, heads, kv heads, window, soft cap)
type Extents = (usize, usize, usize, usize, Option<usize>, Option<f64>);

fn specs(gpu: &Gpu) -> Vec<AttentionSpec> {
    let all: &[Extents] = match gpu.head_dim {
        64 => &[(2, 45, 3, 1, None, None), (1, 70, 2, 2, Some(9), Some(2.0)), (1, 100, 2, 1, Some(50), None)],
        _ => &[(2, 37, 4, 2, Some(21), Some(1.5)), (1, 66, 1, 1, None, None)],
    };
    let spec = |&(batch, seq, heads, kv_heads, window, soft_cap): &Extents| AttentionSpec {
        batch,
        seq,
        heads,
        kv_heads,
        head_dim: gpu.head_dim,
        scale: Scalar(0.25),
        window,
        soft_cap: soft_cap.map(Scalar),
    };
    all.iter().map(spec).collect()
}

pub fn forward(gpu: &Gpu) -> Outcome {
    for spec in specs(gpu) {
        let case = Case::new(gpu, spec);
        let (expected, tolerance) = (case.reference(), gpu.tolerance(5e-6));
        let [out, log_sum_exp] = case.run_forward(gpu)?;
        close("out", out.floats(), &expected.out, tolerance)?;
        close("log-sum-exp", log_sum_exp.floats(), &expected.log_sum_exp, 5e-6)?;
        let ([wide, narrow, per_head], [q, k, v, segments]) = (case.dims(), case.qkv());
        let tokens = [wide[0]];
        let inputs = [(&wide[..], &q), (&narrow[..], &k), (&narrow[..], &v), (&tokens[..], &segments)];
        let outputs = [(&wide[..], &out), (&per_head[..], &log_sum_exp)];
        // The CPU rounds probabilities to bf16 where activations are.
        agrees_with_cpu(gpu, &Operation::Attention(spec), &inputs, &outputs, 3.0 * tolerance)?;
    }
    Ok(())
}

pub fn gradient(gpu: &Gpu) -> Outcome {
    for spec in specs(gpu) {
        let case = Case::new(gpu, spec);
        let expected = case.reference();
        let [out, log_sum_exp] = case.run_forward(gpu)?;
        let dout = activations(&case.dout);
        let mut delta = [dout.clone(), out.clone(), no_floats(log_sum_exp.floats().len())];
        gpu.run(&launch::attention_delta(&spec), &mut delta)?;
        let mut inputs = case.qkv().to_vec();
        inputs.extend([log_sum_exp.clone(), delta[2].clone(), dout.clone()]);
        let (mut of_query, mut of_key) = (inputs.clone(), inputs);
        of_query.push(nothing(case.q.len()));
        gpu.run(&launch::attention_query_gradient(&spec), &mut of_query)?;
        of_key.extend([nothing(case.k.len()), nothing(case.v.len())]);
        gpu.run(&launch::attention_key_gradient(&spec), &mut of_key)?;
        let [dq, dk, dv] = [&of_query[7], &of_key[7], &of_key[8]];
        // Of bf16, the output that delta is a sum of was rounded.
        let tolerance = 2.0 * gpu.tolerance(5e-6);
        close("dq", dq.floats(), &expected.dq, tolerance)?;
        close("dk", dk.floats(), &expected.dk, tolerance)?;
        close("dv", dv.floats(), &expected.dv, tolerance)?;
        let ([wide, narrow, per_head], [q, k, v, segments]) = (case.dims(), case.qkv());
        let tokens = [wide[0]];
        let inputs = [
            (&wide[..], &q),
            (&narrow[..], &k),
            (&narrow[..], &v),
            (&tokens[..], &segments),
            (&wide[..], &out),
            (&per_head[..], &log_sum_exp),
            (&wide[..], &dout),
        ];
        let outputs = [(&wide[..], dq), (&narrow[..], dk), (&narrow[..], dv)];
        agrees_with_cpu(gpu, &Operation::AttentionGrad(spec), &inputs, &outputs, 2.0 * tolerance)?;
    }
    Ok(())
}
