use half::bf16;
use proptest::prelude::*;

use super::{GatedGradient, Linear, LinearSpec, LowRankTerm, Product};
use crate::graph::GateFunction;
use crate::kernels::gated::{GeGlu, GeGluGrad, SwiGlu, SwiGluGrad};
use crate::kernels::matmul::Written;
use crate::kernels::pack::{Element, Pack, PackSpec, packed_len};
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

fn check<E: Element + Written>(case: Case) {
    let Case { rows, inputs, outputs, rank, seed, .. } = case;
    let mut x = Matrix::random(rows, inputs, seed);
    let mut weight = Matrix::random(inputs, outputs, seed + 1);
    let mut u = Matrix::random(rows, rank, seed + 2);
    let mut v = Matrix::random(rank, outputs, seed + 3);
    let mut residual = Matrix::random(rows, outputs, seed + 4);
    let [x_stored, u_stored, residual_stored] = [&mut x, &mut u, &mut residual].map(Matrix::rounded::<E>);
    weight.rounded::<E>();
    v.rounded::<E>();
    // bf16 holds v times a power of two exactly.
    let scale: f32 = if E::PAIR == 1 { 0.75 } else { 0.5 };
    let mut expected = x.times(&weight);
    for (y, low_rank) in expected.iter_mut().zip(u.times(&v)) {
        *y += f64::from(scale) * low_rank;
    }
    if case.residual {
        expected.iter_mut().zip(&residual.values).for_each(|(y, r)| *y += f64::from(*r));
    }

    let mut stored = if case.transpose_weight { weight } else { weight.transposed() };
    let v = if case.transpose_v { v } else { v.transposed() }.rounded::<E>();
    let (n, k) = (stored.rows, stored.columns);
    let mut packed = vec![E::narrow(f32::NAN); packed_len::<E>(n, k)];
    let spec = PackSpec { outputs: n, inputs: k };
    run(&Pack::new(In::of(&stored.rounded::<E>()), Out::of(&mut packed), spec).unwrap());
    for isa in Isa::available() {
        let mut y = vec![E::narrow(f32::NAN); rows * outputs];
        let (u, v) = (In::of(&u_stored), In::of(&v));
        let term = LowRankTerm { u, v, rank, scale, transpose: case.transpose_v };
        let kernel = Linear::new(
            In::of(&x_stored),
            In::of(&packed),
            (rank > 0).then_some(term),
            Product::Written {
                residual: case.residual.then(|| In::of(&residual_stored)),
                y: Out::of(&mut y),
            },
            LinearSpec { rows, inputs, outputs, transpose_weight: case.transpose_weight, isa },
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
        let case = Case { rows, inputs, outputs, rank, transpose_v, transpose_weight, residual, seed };
        check::<f32>(case);
        check::<bf16>(case);
    }
}

#[test]
fn agrees_with_f64_where_k_is_cut_and_rows_are_copied() {
    for (rows, inputs, outputs, rank) in [
        (59, 1600, 70, 64),
        (30, 2048, 33, 8),
        (3, 4096, 100, 0),
        (113, 1024, 65, 5),
        (20, 3301, 40, 3),
        (600, 65, 100, 8),
    ] {
        for (transpose_weight, transpose_v) in [(false, true), (true, false)] {
            let case = Case {
                rows,
                inputs,
                outputs,
                rank,
                transpose_v,
                transpose_weight,
                residual: transpose_v,
                seed: 7,
            };
            check::<f32>(case);
            check::<bf16>(case);
        }
    }
}

/// A product that goes straight into a gated unit's gradient gives the bits of the three operations one by one.
fn check_gated<E: Element + Written + PartialEq>(case: Case, function: GateFunction) {
    let Case { rows, inputs, outputs, rank, seed, transpose_weight, .. } = case;
    let stored = |rows, columns, salt| Matrix::random(rows, columns, seed + salt).rounded::<E>();
    let (x, u, gate, up) =
        (stored(rows, inputs, 0), stored(rows, rank, 1), stored(rows, outputs, 2), stored(rows, outputs, 3));
    let (n, k) = if transpose_weight { (inputs, outputs) } else { (outputs, inputs) };
    let (weight, v) = (stored(n, k, 4), stored(outputs, rank, 5));
    let mut packed = vec![E::narrow(0.0); packed_len::<E>(n, k)];
    let pack = PackSpec { outputs: n, inputs: k };
    run(&Pack::new(In::of(&weight), Out::of(&mut packed), pack).unwrap());
    let isa = Isa::detect();
    let linear = |product| {
        let term = LowRankTerm { u: In::of(&u), v: In::of(&v), rank, scale: 0.5, transpose: false };
        let spec = LinearSpec { rows, inputs, outputs, transpose_weight, isa };
        run(&Linear::new(In::of(&x), In::of(&packed), (rank > 0).then_some(term), product, spec).unwrap());
    };
    let empty = || vec![E::narrow(f32::NAN); rows * outputs];
    let [mut dy, mut dgate, mut dup, mut value] = [(); 4].map(|()| empty());
    linear(Product::Written { residual: None, y: Out::of(&mut dy) });
    let (gate_in, up_in, dy_in) = (In::of(&gate), In::of(&up), In::of(&dy));
    let [to_gate, to_up, to_value] = [&mut dgate, &mut dup, &mut value].map(|to| Out::of(to));
    match function {
        GateFunction::Silu => {
            run(&SwiGluGrad::new(gate_in, up_in, dy_in, to_gate, to_up).unwrap());
            run(&SwiGlu::new(gate_in, up_in, to_value).unwrap());
        }
        GateFunction::GeluTanh => {
            run(&GeGluGrad::new(gate_in, up_in, dy_in, to_gate, to_up).unwrap());
            run(&GeGlu::new(gate_in, up_in, to_value).unwrap());
        }
    }
    for with_value in [false, true] {
        let [mut dgate_joined, mut dup_joined, mut value_joined] = [(); 3].map(|()| empty());
        linear(Product::Gated(GatedGradient {
            function,
            gate: gate_in,
            up: up_in,
            dgate: Out::of(&mut dgate_joined),
            dup: Out::of(&mut dup_joined),
            value: with_value.then(|| Out::of(&mut value_joined)),
        }));
        assert!(dgate_joined == dgate && dup_joined == dup, "{function:?} {case:?}");
        assert!(!with_value || value_joined == value, "{function:?} {case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_gated_gradient_is_that_of_the_written_product(
        (rows, inputs, outputs) in (1usize..130, prop_oneof![1usize..70, Just(1600), Just(3301)], 1usize..70),
        rank in 0usize..9,
        (transpose_weight, gelu) in any::<(bool, bool)>(),
        seed in any::<u32>(),
    ) {
        let (transpose_v, residual, seed) = (false, false, u64::from(seed));
        let case = Case { rows, inputs, outputs, rank, transpose_v, transpose_weight, residual, seed };
        let function = if gelu { GateFunction::GeluTanh } else { GateFunction::Silu };
        check_gated::<f32>(case, function);
        check_gated::<bf16>(case, function);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let x = [0.0f32; 6];
    let mut y = [0.0; 4];
    let spec = LinearSpec { rows: 2, inputs: 3, outputs: 2, transpose_weight: false, isa: Isa::Portable };
    let product = Product::Written { residual: None, y: Out::of(&mut y) };
    assert!(Linear::new(In::of(&x), In::of(&x), None, product, spec).is_err());
}
