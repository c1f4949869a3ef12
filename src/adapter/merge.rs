//! Folding a LoRA pair into the weight that it adapts.

use super::{AdaptedLinear, LoraPair, ModuleKind};

/// Below this a length counts as zero, and what DoRA scales by it stays zero.
const SHORTEST: f64 = 1e-15;

/// Adds `scale * B x A` to `weight` (`[out, in]`, of the token table `[in, out]`); with DoRA, then gives each output
/// feature the length that its magnitude says.
///
/// Of a layer of experts, the weight and the pair are those of one expert. Costs 2 * out * in * rank operations. The pair's sizes must fit the weight, which reading an adapter checks.
pub fn merge_into(weight: &mut [f32], module: &AdaptedLinear, pair: &LoraPair) {
    match module.kind {
        ModuleKind::Linear | ModuleKind::Experts(_) => merge_linear(weight, pair, module.scale),
        ModuleKind::Embedding => merge_embedding(weight, pair, module.scale),
    }
}

fn merge_linear(weight: &mut [f32], pair: &LoraPair, scale: f64) {
    let mut delta = vec![0.0; pair.in_features];
    let rows = weight.chunks_exact_mut(pair.in_features).zip(pair.b.chunks_exact(pair.rank));
    for (feature, (row, b_row)) in rows.enumerate() {
        delta.fill(0.0);
        for (&b, a_row) in b_row.iter().zip(pair.a.chunks_exact(pair.in_features)) {
            for (sum, &a) in delta.iter_mut().zip(a_row) {
                *sum += b * a;
            }
        }
        for (value, &change) in row.iter_mut().zip(&delta) {
            *value += scale as f32 * change;
        }
        if let Some(magnitude) = &pair.magnitude {
            let square: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
            let gain = gain(magnitude[feature], square);
            row.iter_mut().for_each(|value| *value *= gain);
        }
    }
}

fn merge_embedding(weight: &mut [f32], pair: &LoraPair, scale: f64) {
    let mut squares = vec![0.0; pair.out_features];
    for (id, row) in weight.chunks_exact_mut(pair.out_features).enumerate() {
        for ((value, b_row), square) in row.iter_mut().zip(pair.b.chunks_exact(pair.rank)).zip(&mut squares) {
            let a_column = pair.a.iter().skip(id).step_by(pair.in_features);
            let change: f32 = b_row.iter().zip(a_column).map(|(b, a)| b * a).sum();
            *value += scale as f32 * change;
            *square += f64::from(*value) * f64::from(*value);
        }
    }
    let Some(magnitude) = &pair.magnitude else { return };
    let gains: Vec<f32> = magnitude.iter().zip(squares).map(|(&m, square)| gain(m, square)).collect();
    for row in weight.chunks_exact_mut(pair.out_features) {
        row.iter_mut().zip(&gains).for_each(|(value, gain)| *value *= gain);
    }
}

fn gain(magnitude: f32, square: f64) -> f32 {
    (f64::from(magnitude) / square.sqrt().max(SHORTEST)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(kind: ModuleKind, scale: f64) -> AdaptedLinear {
        let path = "layer".to_owned();
        let (in_features, out_features, rank, alpha) = (3, 2, 1, scale);
        let dora = false;
        AdaptedLinear {
            path,
            kind,
            layer: None,
            in_features,
            out_features,
            rank,
            alpha,
            scale,
            dropout: 0.0,
            dora,
        }
    }

    fn pair(magnitude: Option<Vec<f32>>) -> LoraPair {
        // B [2, 1] x A [1, 3]
        let (a, b) = (vec![1.0, 2.0, 3.0], vec![1.0, -1.0]);
        LoraPair { rank: 1, in_features: 3, out_features: 2, a, b, magnitude }
    }

    #[test]
    fn adds_the_scaled_product() {
        let mut weight = vec![10.0; 6];
        merge_into(&mut weight, &module(ModuleKind::Linear, 2.0), &pair(None));
        assert_eq!(weight, [12.0, 14.0, 16.0, 8.0, 6.0, 4.0]);
        let mut table = vec![10.0; 6];
        merge_into(&mut table, &module(ModuleKind::Embedding, 2.0), &pair(None));
        assert_eq!(table, [12.0, 8.0, 14.0, 6.0, 16.0, 4.0]);
    }

    #[test]
    fn dora_sets_the_length_of_each_output_feature() {
        let lengths = Some(vec![1.0, 29f32.sqrt() * 2.0]);
        let mut weight = vec![10.0; 6];
        merge_into(&mut weight, &module(ModuleKind::Linear, 2.0), &pair(lengths.clone()));
        let near = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        near(weight[..3].iter().map(|value| value * value).sum::<f32>(), 1.0);
        near(weight[3], 8.0);
        let mut table = vec![10.0; 6];
        merge_into(&mut table, &module(ModuleKind::Embedding, 2.0), &pair(lengths));
        near(table[1], 8.0);
        near(table[0], weight[0]);
        let mut nothing = vec![0.0; 6];
        let mut idle = pair(Some(vec![0.0; 2]));
        idle.b.fill(0.0);
        merge_into(&mut nothing, &module(ModuleKind::Linear, 2.0), &idle);
        assert_eq!(nothing, [0.0; 6]);
    }
}
