//! Folding a LoRA pair into the weight that it adapts.

use super::LoraPair;

/// Adds `scale * B x A` to `weight` `[out, in]`, one output row at a time.
///
/// Costs 2 * out * in * rank operations. The pair's sizes must fit the weight, which reading an adapter checks.
pub fn merge_into(weight: &mut [f32], pair: &LoraPair, scale: f64) {
    let mut delta = vec![0.0; pair.in_features];
    for (row, b_row) in weight.chunks_exact_mut(pair.in_features).zip(pair.b.chunks_exact(pair.rank)) {
        delta.fill(0.0);
        for (&b, a_row) in b_row.iter().zip(pair.a.chunks_exact(pair.in_features)) {
            for (sum, &a) in delta.iter_mut().zip(a_row) {
                *sum += b * a;
            }
        }
        for (value, &change) in row.iter_mut().zip(&delta) {
            *value += scale as f32 * change;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_the_scaled_product() {
        // B [2, 1] x A [1, 3]
        let pair =
            LoraPair { rank: 1, in_features: 3, out_features: 2, a: vec![1.0, 2.0, 3.0], b: vec![1.0, -1.0] };
        let mut weight = vec![10.0; 6];
        merge_into(&mut weight, &pair, 2.0);
        assert_eq!(weight, [12.0, 14.0, 16.0, 8.0, 6.0, 4.0]);
    }
}
