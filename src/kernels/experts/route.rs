use crate::error::Result;
use crate::graph::RouteSide;
use crate::kernels::number::Number;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Kernel, Out};

/// Extents of a routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpec {
    pub experts: usize,
    /// Experts of one token, at least 1 and at most all.
    pub chosen: usize,
    pub side: RouteSide,
}

/// (scores [n, experts]) -> u32 `[n * chosen]`; one part, because it sorts.
#[derive(Debug)]
pub struct Route<T> {
    scores: In<T>,
    y: Out<u32>,
    spec: RouteSpec,
}

impl<T: Number> Route<T> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(scores: In<T>, y: Out<u32>, spec: RouteSpec) -> Result<Self> {
        let tokens = scores.len().checked_div(spec.experts).unwrap_or(0);
        expect_len("the scores", scores.len(), tokens * spec.experts)?;
        expect_len("the routed pairs", y.len(), tokens * spec.chosen)?;
        Ok(Self { scores, y, spec })
    }
}

impl<T: Number> Kernel for Route<T> {
    fn parts(&self) -> usize {
        1
    }

    fn run(&self, _part: usize, _scratch: &mut [u8]) {
        // SAFETY: there is only one part.
        let y = unsafe { self.y.range(0..self.y.len()) };
        routes(self.scores.as_slice(), &self.spec, y);
    }
}

/// Writes the wanted side of all pairs of a token and an expert, sorted by expert, then by token.
pub fn routes<T: Number>(scores: &[T], spec: &RouteSpec, y: &mut [u32]) {
    let RouteSpec { experts, chosen, side } = *spec;
    let mut best = vec![(0, f64::NEG_INFINITY); chosen];
    let mut counts = vec![0; experts];
    for row in scores.chunks_exact(experts) {
        choose(row, &mut best);
        best.iter().for_each(|&(expert, _)| counts[expert] += 1);
    }
    // Where the next pair of each expert goes.
    let mut next = 0;
    for count in &mut counts {
        next += std::mem::replace(count, next);
    }
    for (token, row) in scores.chunks_exact(experts).enumerate() {
        choose(row, &mut best);
        for &(expert, _) in &best {
            y[counts[expert]] = match side {
                RouteSide::Tokens => token as u32,
                RouteSide::Experts => expert as u32,
            };
            counts[expert] += 1;
        }
    }
}

/// The highest scores of a row, the first of equal ones before the others. What is not a number counts as the lowest.
fn choose<T: Number>(row: &[T], best: &mut [(usize, f64)]) {
    let chosen = best.len();
    let rank = |value: f64| if value.is_nan() { f64::NEG_INFINITY } else { value };
    for (filled, (expert, score)) in row.iter().map(|score| rank(score.to_f64())).enumerate().enumerate() {
        let filled = filled.min(chosen);
        if filled == chosen && score <= best[chosen - 1].1 {
            continue;
        }
        let mut at = filled.min(chosen - 1);
        while at > 0 && best[at - 1].1 < score {
            best[at] = best[at - 1];
            at -= 1;
        }
        best[at] = (expert, score);
    }
}
