//! The next token from logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: always the likeliest token.
    pub temperature: f64,
    /// Keep the likeliest tokens whose probabilities add up to this (Holtzman et al. 2019, arXiv:1904.09751).
    pub top_p: f64,
    pub seed: u64,
}

impl Sampling {
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, seed: 0 };
}

/// Chooses tokens; equal seeds and logits give equal choices.
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, random: ChaCha8Rng::seed_from_u64(sampling.seed) }
    }

    /// The chosen index of `logits` `[vocab]`; 0 if they are empty.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let mut ranked: Vec<(u32, f64)> =
            (0u32..).zip(logits.iter().map(|&logit| f64::from(logit))).collect();
        if self.sampling.temperature <= 0.0 {
            let best = ranked.iter().reduce(|best, other| if other.1 > best.1 { other } else { best });
            return best.map_or(0, |best| best.0);
        }
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let highest = ranked.first().map_or(0.0, |first| first.1);
        for entry in &mut ranked {
            entry.1 = ((entry.1 - highest) / self.sampling.temperature).exp();
        }
        let total: f64 = ranked.iter().map(|entry| entry.1).sum();
        let mut kept = 0.0;
        let nucleus = ranked.iter().take_while(|entry| {
            let before = kept;
            kept += entry.1 / total;
            before < self.sampling.top_p
        });
        let nucleus: Vec<(u32, f64)> = nucleus.copied().collect();
        self.draw(&nucleus)
    }

    fn draw(&mut self, weighted: &[(u32, f64)]) -> u32 {
        let total: f64 = weighted.iter().map(|entry| entry.1).sum();
        // 53 random bits: the precision of an f64 in [0, 1).
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * total;
        for &(token, weight) in weighted {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        weighted.last().map_or(0, |entry| entry.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(Sampler::new(Sampling::GREEDY).next(&[0.5, 2.0, -1.0, 2.0]), 1);
    }

    #[test]
    fn a_small_nucleus_leaves_one_choice() {
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, top_p: 0.1, seed: 3 });
        for _ in 0..100 {
            assert_eq!(sampler.next(&[0.0, 1.0, 5.0, 0.0]), 2);
        }
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, top_p: 1.0, seed: 7 });
        let logits = [0.0f32, 3.0f32.ln()];
        let ones = (0..4000).filter(|_| sampler.next(&logits) == 1).count();
        assert!((2850..3150).contains(&ones), "{ones} of 4000 draws, expected about 3000");
    }
}
