use proptest::prelude::*;

use super::{Linear, LinearSpec, LowRankTerm};
use crate::kernels::pack::{Pack, PackSpec, packed_len};
use crate::kernels::simd::Isa;
use crate::kernels::testing::{Matrix, assert_close, run};
use crate::kernels::{In, Out};

#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    rank: usize,
    transpose_v: bool,
    transpose_weight: bool,
    residual: bool,
    seed: u64,
}

fn check(case: Case) {
    let Case { rows, inputs, outputs, rank, seed, .. } = case;
    let x = Matrix::random(rows, inputs, seed);
    let weight = Matrix::random(inputs, outputs, seed + 1);
    let u = Matrix::random(rows, rank, seed + 2);
    let v = Matrix::random(rank, outputs, seed + 3);
    let residual = Matrix::random(rows, outputs, seed + 4);
    let mut expected = x.times(&weight);
    for (y, low_rank) in expected.iter_mut().zip(u.times(&v)) {
        *y += 0.75 * low_rank;
    }
    if case.residual {
        expected.iter_mut().zip(&residual.values).for_each(|(y, r)| *y += f64::from(*r));
    }

    let stored = if case.transpose_weight { weight } else { weight.transposed() };
    let v = if case.transpose_v { v } else { v.transposed() };
    let mut packed = vec![f32::NAN; packed_len::<f32>(outputs, inputs)];
    let spec = PackSpec { outputs, inputs, transpose_weight: case.transpose_weight };
    run(&Pack::new(stored.span(), Out::of(&mut packed), spec).unwrap());
    for isa in Isa::available() {
        let mut y = vec![f32::NAN; rows * outputs];
        let term = LowRankTerm { u: u.span(), v: v.span(), rank, scale: 0.75, transpose: case.transpose_v };
        let kernel = Linear::new(
            x.span(),
            In::of(&packed),
            (rank > 0).then_some(term),
            case.residual.then(|| residual.span()),
            Out::of(&mut y),
            LinearSpec { rows, inputs, outputs, isa },
        );
        run(&kernel.unwrap());
        assert_close(&y, &expected, inputs + rank, &format!("{isa:?} {case:?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn agrees_with_f64_on_ragged_shapes(
        (rows, inputs, outputs) in (1usize..70, 0usize..70, 1usize..70),
        rank in 0usize..9,
        (transpose_v, transpose_weight, residual) in any::<(bool, bool, bool)>(),
        seed in any::<u32>(),
    ) {
        let seed = u64::from(seed);
        check(Case { rows, inputs, outputs, rank, transpose_v, transpose_weight, residual, seed });
    }
}

#[test]
fn agrees_with_f64_where_k_is_cut_and_rows_are_copied() {
    for (rows, inputs, outputs, rank) in
        [(59, 1600, 70, 64), (30, 2048, 33, 8), (3, 4096, 100, 0), (113, 1024, 65, 5)]
    {
        let flags = rank % 2 == 0;
        let case = Case {
            rows,
            inputs,
            outputs,
            rank,
            transpose_v: flags,
            transpose_weight: !flags,
            residual: true,
            seed: 7,
        };
        check(case);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let x = [0.0; 6];
    let mut y = [0.0; 4];
    let spec = LinearSpec { rows: 2, inputs: 3, outputs: 2, isa: Isa::Portable };
    assert!(Linear::new(In::of(&x), In::of(&x), None, None, Out::of(&mut y), spec).is_err());
}
