//! Initial values of a LoRA pair.

use super::ModuleKind;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A random stream that depends only on the run's seed and the tensor's name, so that neither the order of tensors
/// nor the number of threads changes any value.
pub fn named_stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A number in `[0, 1)` with 24 random bits: every value is an exact f32.
pub fn uniform(stream: &mut ChaCha8Rng) -> f32 {
    (stream.next_u32() >> 8) as f32 / (1 << 24) as f32
}

/// The initial A `[rank, in_features]` of the module at `path`: uniform in +-1/sqrt(in_features), which is PEFT's
/// Kaiming initialization with a = sqrt(5). B starts at zero.
pub fn initial_a(seed: u64, path: &str, rank: usize, in_features: usize) -> Vec<f32> {
    let bound = 1.0 / (in_features as f32).sqrt();
    let mut stream = named_stream(seed, &format!("{path}.lora_A.weight"));
    (0..rank * in_features).map(|_| (2.0 * uniform(&mut stream) - 1.0) * bound).collect()
}

/// Standard normal numbers (Box and Muller 1958), which is how PEFT starts an embedding's B; its A starts at zero.
pub fn normal(seed: u64, name: &str, count: usize) -> Vec<f32> {
    let mut stream = named_stream(seed, name);
    let mut pair = || {
        // 1 - u is never 0.
        let radius = (-2.0 * (1.0 - uniform(&mut stream)).ln()).sqrt();
        let angle = std::f32::consts::TAU * uniform(&mut stream);
        [radius * angle.cos(), radius * angle.sin()]
    };
    (0..count.div_ceil(2)).flat_map(|_| pair()).take(count).collect()
}

/// DoRA's magnitude `[out]` before the first step: the length of the weights of each output feature of a module whose
/// pair still changes nothing.
pub fn initial_magnitude(weight: &[f32], kind: ModuleKind, out_features: usize) -> Vec<f32> {
    let mut squares = vec![0.0; out_features];
    let in_features = weight.len() / out_features.max(1);
    for (index, &value) in weight.iter().enumerate() {
        let feature = match kind {
            ModuleKind::Linear | ModuleKind::Experts(_) => index / in_features,
            ModuleKind::Embedding => index % out_features,
        };
        squares[feature] += f64::from(value) * f64::from(value);
    }
    squares.into_iter().map(|square: f64| square.sqrt() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fill_the_bound_evenly() {
        let values = initial_a(1, "model.layers.0.mlp.up_proj", 16, 64);
        let bound = 0.125;
        assert!(values.iter().all(|value| value.abs() <= bound));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((variance - bound * bound / 3.0).abs() < 5e-4, "{variance}");
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let values = normal(1, "b", 4001);
        let mean = values.iter().sum::<f32>() / 4001.0;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / 4001.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.06, "{mean} {variance}");
    }

    #[test]
    fn the_magnitude_is_the_length_of_rows_or_columns() {
        let weight = [3.0, 0.0, 4.0, 2.0, 1.0, 2.0];
        assert_eq!(initial_magnitude(&weight, ModuleKind::Linear, 2), [5.0, 3.0]);
        let columns = initial_magnitude(&weight, ModuleKind::Embedding, 3);
        assert_eq!(columns, [13f32.sqrt(), 1.0, 20f32.sqrt()]);
    }

    #[test]
    fn seed_and_name_decide_the_values() {
        let of = |seed, path| initial_a(seed, path, 2, 4);
        assert_eq!(of(1, "a"), of(1, "a"));
        assert_ne!(of(1, "a"), of(2, "a"));
        assert_ne!(of(1, "a"), of(1, "b"));
    }
}
