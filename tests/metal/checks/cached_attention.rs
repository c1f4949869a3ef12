//! Attention over a cache.

use lazytune::graph::{AttentionSpec, Operation, Scalar};
use lazytune::kernels::metal::launch;

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Buffer, Gpu, activations, nothing};

const CAPACITY: usize = 60;

pub fn check(gpu: &Gpu) -> Outcome {
    for (seq, start, heads, kv_heads, window, soft_cap) in [
        (1, 44, 4, 2, None, None),
        // Fewer keys than SIMD groups.
        (3, 0, 3, 1, None, Some(2.0)),
        (5, 50, 2, 2, Some(7), None),
        // The queries are moved back to where they end with the cache.
        (4, 59, 2, 1, None, None),
    ] {
        let spec = AttentionSpec {
            batch: 1,
            seq,
            heads,
            kv_heads,
            head_dim: gpu.head_dim,
            scale: Scalar(0.25),
            window,
            soft_cap: soft_cap.map(Scalar),
        };
        attention(gpu, spec, start)?;
    }
    Ok(())
}

fn attention(gpu: &Gpu, spec: AttentionSpec, start: usize) -> Outcome {
    let AttentionSpec { seq, heads, kv_heads, head_dim, .. } = spec;
    let (wide, narrow) = ([seq, heads * head_dim], [CAPACITY, kv_heads * head_dim]);
    let q = gpu.round(noise(wide[0] * wide[1], 1).into_iter().map(|x| 3.0 * x).collect());
    let [keys, values] = [2, 3].map(|seed| gpu.round(noise(narrow[0] * narrow[1], seed)));
    let mut expected = vec![];
    for (query, head) in (0..seq).flat_map(|query| (0..heads).map(move |head| (query, head))) {
        let position = start.min(CAPACITY - seq) + query;
        let first = (position + 1).saturating_sub(spec.window.unwrap_or(CAPACITY));
        let key_at = |key: usize| (key * kv_heads + head / (heads / kv_heads)) * head_dim;
        let own = &q[(query * heads + head) * head_dim..][..head_dim];
        let score = |key: usize| {
            let products = own.iter().zip(&keys[key_at(key)..]).map(|(&q, &k)| f64::from(q) * f64::from(k));
            let score = spec.scale.0 * products.sum::<f64>();
            spec.soft_cap.map_or(score, |cap| cap.0 * (score / cap.0).tanh()).exp()
        };
        let weights: Vec<(usize, f64)> = (first..=position).map(|key| (key, score(key))).collect();
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        expected.extend((0..head_dim).map(|column| {
            let sum = weights.iter().map(|&(key, weight)| weight * f64::from(values[key_at(key) + column]));
            sum.sum::<f64>() / total
        }));
    }
    let [q, keys, values] = [q, keys, values].map(|values| activations(&values));
    let mut buffers = [q, keys, values, Buffer::U32(vec![start as u32]), nothing(expected.len())];
    gpu.run(&launch::cached_attention(&spec, CAPACITY as u32), &mut buffers)?;
    let tolerance = gpu.tolerance(5e-6);
    close("out", buffers[4].floats(), &expected, tolerance)?;
    let [q, keys, values, start, out] = &buffers;
    let inputs = [(&wide[..], q), (&narrow[..], keys), (&narrow[..], values), (&[1][..], start)];
    // The CPU rounds probabilities to bf16 where activations are.
    agrees_with_cpu(gpu, &Operation::CachedAttention(spec), &inputs, &[(&wide, out)], 3.0 * tolerance)
}
