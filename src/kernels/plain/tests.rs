//! Against the definitions, written out element by element.

use proptest::prelude::*;

use super::*;
use crate::graph::{self, IGNORE_TARGET, Reduction, RopeTableKind, Scalar};
use crate::kernels::testing::{cases, noise, outputs, relative_error, run, widen};
use crate::kernels::{In, Kernel, Out};

type One = fn(f64) -> f64;
type Two = fn(f64, f64) -> f64;

/// What the operations compute, in f64.
const UNARY: [(graph::Unary, One); 9] = [
    (graph::Unary::Negate, |x| -x),
    (graph::Unary::Exp, f64::exp),
    (graph::Unary::Log, f64::ln),
    (graph::Unary::Sqrt, f64::sqrt),
    (graph::Unary::Reciprocal, |x| 1.0 / x),
    (graph::Unary::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
    (graph::Unary::Tanh, f64::tanh),
    (graph::Unary::Sin, f64::sin),
    (graph::Unary::Cos, f64::cos),
];

const BINARY: [(graph::Binary, Two); 4] = [
    (graph::Binary::Add, |a, b| a + b),
    (graph::Binary::Subtract, |a, b| a - b),
    (graph::Binary::Multiply, |a, b| a * b),
    (graph::Binary::Divide, |a, b| a / b),
];

fn boxed(kernel: impl Kernel + 'static) -> Box<dyn Kernel> {
    Box::new(kernel)
}

#[test]
fn elementwise_operations_follow_their_definitions_over_several_parts() {
    let n = 70_001;
    let a: Vec<f32> = noise(n, 1).iter().map(|x| x + 1.1).collect();
    let b: Vec<f32> = noise(n, 2).iter().map(|x| x + 1.1).collect();
    for (op, f) in UNARY {
        let [y] = outputs([n], |[y]| boxed(Unary::new(op, In::of(&a), y).unwrap()));
        let expected: Vec<f64> = a.iter().map(|&x| f(f64::from(x))).collect();
        assert!(relative_error(&y, &expected) < 1e-6, "{op:?}");
        let (wide, mut y) = (widen(&a), vec![f64::NAN; n]);
        run(&Unary::new(op, In::of(&wide), Out::of(&mut y)).unwrap());
        assert_eq!(y, expected, "{op:?}");
    }
    for (op, f) in BINARY {
        let [y] = outputs([n], |[y]| boxed(Binary::new(op, In::of(&a), In::of(&b), y).unwrap()));
        for i in 0..n {
            assert_eq!(y[i], f(f64::from(a[i]), f64::from(b[i])) as f32, "{op:?} at {i}");
        }
    }
    let [y] = outputs([n], |[y]| boxed(Affine::new(2.5, -0.5, In::of(&a), y).unwrap()));
    assert!(y.iter().zip(&a).all(|(y, a)| *y == a * 2.5 - 0.5));
}

#[test]
fn casts_round_to_nearest() {
    let x = noise(1000, 3);
    let mut half = vec![half::bf16::NAN; 1000];
    run(&Cast::new(In::of(&x), Out::of(&mut half)).unwrap());
    assert!(half.iter().zip(&x).all(|(h, x)| *h == half::bf16::from_f32(*x)));
    let [back] = outputs([1000], |[y]| boxed(Cast::new(In::of(&half), y).unwrap()));
    assert!(back.iter().zip(&half).all(|(b, h)| *b == h.to_f32()));
    let mut wide = vec![f64::NAN; 3];
    run(&Cast::new(In::of(&[0, 7, u32::MAX]), Out::of(&mut wide)).unwrap());
    assert_eq!(wide, [0.0, 7.0, 4_294_967_295.0]);
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn permutations_broadcasts_and_slices_read_the_right_elements(
        dims in prop::collection::vec(1usize..7, 0..=5),
        order in any::<u64>(),
        repeat in any::<u8>(),
    ) {
        // Axes of a row-major source, some repeated, in a shuffled order.
        let mut axes: Vec<(usize, usize)> = Vec::new();
        let mut stride = 1;
        for (i, &extent) in dims.iter().enumerate().rev() {
            let repeated = repeat >> i & 1 == 1;
            axes.push((extent, if repeated { 0 } else { stride }));
            stride *= if repeated { 1 } else { extent };
        }
        axes.sort_by_key(|(d, s)| ((d * 31 + s) as u64 ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (dims, strides): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
        let x = noise(stride + 3, 5);
        let n: usize = dims.iter().product();
        let [y] = outputs([n], |[y]| boxed(StridedCopy::new(&dims, &strides, 3, In::of(&x), y).unwrap()));
        for (i, y) in y.iter().enumerate() {
            let mut rest = i;
            let mut at = 3;
            for (d, s) in dims.iter().zip(&strides).rev() {
                at += rest % d * s;
                rest /= d;
            }
            prop_assert_eq!(*y, x[at]);
        }
    }

    #[test]
    fn reductions_follow_their_definition(
        (outer, axis, inner) in (1usize..5, 1usize..50, 1usize..300),
        row_length in prop::bool::ANY,
    ) {
        let (axis, inner) = if row_length { (axis * inner, 1) } else { (axis, inner) };
        let x = noise(outer * axis * inner, 9);
        let element = |o: usize, a: usize, i: usize| f64::from(x[(o * axis + a) * inner + i]);
        for reduction in [Reduction::Sum, Reduction::Max] {
            let [y] = outputs([outer * inner], |[y]| {
                boxed(Reduce::new(reduction, [outer, axis, inner], In::of(&x), y).unwrap())
            });
            for (at, y) in y.iter().enumerate() {
                let values = (0..axis).map(|a| element(at / inner, a, at % inner));
                let expected = match reduction {
                    Reduction::Sum => values.sum(),
                    Reduction::Max => values.fold(f64::NEG_INFINITY, f64::max),
                };
                prop_assert!((f64::from(*y) - expected).abs() < 1e-6 * expected.abs().max(1.0));
            }
        }
    }

    #[test]
    fn concat_puts_inputs_side_by_side(outer in 1usize..5, widths in prop::collection::vec(0usize..9, 1..5)) {
        let inputs: Vec<_> = widths.iter().enumerate().map(|(i, w)| noise(outer * w, i as u64)).collect();
        let width: usize = widths.iter().sum();
        let [y] = outputs([outer * width], |[y]| {
            let spans: Vec<_> = inputs.iter().map(|x| In::of(x)).collect();
            boxed(Concat::new(outer, &spans, y).unwrap())
        });
        let expected: Vec<f32> = (0..outer)
            .flat_map(|row| inputs.iter().zip(&widths).flat_map(move |(x, w)| x[row * w..(row + 1) * w].to_vec()))
            .collect();
        prop_assert_eq!(y, expected);
    }

    #[test]
    fn scattering_rows_adds_equal_ids(rows in 1usize..200, width in 1usize..20, n in 0usize..300) {
        let ids: Vec<u32> =
            (0..n as u32).map(|i| if i % 7 == 3 { IGNORE_TARGET } else { i * i % rows as u32 }).collect();
        let values = noise(n * width, 4);
        let [y] = outputs([rows * width], |[y]| {
            boxed(ScatterRows::new(width, In::of(&ids), In::of(&values), y).unwrap())
        });
        let mut expected = vec![0.0; rows * width];
        for (i, &id) in ids.iter().enumerate().filter(|(_, id)| **id != IGNORE_TARGET) {
            for j in 0..width {
                expected[id as usize * width + j] += values[i * width + j];
            }
        }
        prop_assert_eq!(y, expected);
    }
}

#[test]
fn a_nan_survives_a_maximum() {
    for extents in [[1, 40, 1], [1, 40, 3]] {
        let mut x = noise(40 * extents[2], 1);
        x[17 * extents[2]] = f32::NAN;
        let [y] =
            outputs([extents[2]], |[y]| boxed(Reduce::new(Reduction::Max, extents, In::of(&x), y).unwrap()));
        assert!(y[0].is_nan());
    }
}

#[test]
fn ids_choose_rows_and_elements_and_unknown_ids_choose_zeros() {
    let (x, ids) = ([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [1, IGNORE_TARGET, 9]);
    let [y] = outputs([6], |[y]| boxed(Embedding::new(2, In::of(&x), In::of(&ids), y).unwrap()));
    assert_eq!(y, [3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    let [y] = outputs([3], |[y]| boxed(TakeLast::new(2, In::of(&x), In::of(&ids), y).unwrap()));
    assert_eq!(y, [2.0, 0.0, 0.0]);
    let [y] = outputs([6], |[y]| boxed(ScatterLast::new(2, In::of(&x[..3]), In::of(&ids), y).unwrap()));
    assert_eq!(y, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn rows_are_written_into_a_state_and_none_past_its_end() {
    let mut state = [0.0f32; 6];
    let rows = [1.0, 2.0, 3.0, 4.0];
    run(&WriteRows::new(2, In::of(&rows), In::of(&[1]), Out::of(&mut state)).unwrap());
    assert_eq!(state, [0.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
    run(&WriteRows::new(2, In::of(&rows), In::of(&[2]), Out::of(&mut state)).unwrap());
    assert_eq!(state, [0.0, 0.0, 1.0, 2.0, 1.0, 2.0]);
}

#[test]
fn masks_hide_later_keys_and_other_segments() {
    let [y] = outputs([9], |[y]| boxed(AttentionMask::new(1, 3, In::of(&[0, 0, 1]), y).unwrap()));
    let seen: Vec<bool> = y.iter().map(|y| *y == 0.0).collect();
    assert_eq!(seen, [true, false, false, true, true, false, false, false, true]);
    assert!(y.iter().all(|y| *y == 0.0 || *y == MASKED as f32));
}

#[test]
fn rope_tables_hold_cosines_and_sines_of_position_times_frequency() {
    let frequencies: std::sync::Arc<[Scalar]> = [Scalar(1.0), Scalar(0.01)].into();
    for (kind, f) in [(RopeTableKind::Cosine, f64::cos as fn(f64) -> f64), (RopeTableKind::Sine, f64::sin)] {
        let [y] = outputs([200], |[y]| boxed(RopeTable::new(100, frequencies.clone(), kind, y).unwrap()));
        for (i, y) in y.iter().enumerate() {
            assert_eq!(*y, f((i / 2) as f64 * frequencies[i % 2].0) as f32);
        }
    }
}

#[test]
fn dropout_keeps_the_mean_and_depends_on_seed_and_stream_only() {
    let n = 200_001;
    let mask = |stream, seed: [u32; 2]| {
        let [y] = outputs([n], |[y]| boxed(DropoutMask::new(stream, 0.25, In::of(&seed), y).unwrap()));
        y
    };
    let first = mask(1, [2, 3]);
    let kept = first.iter().filter(|y| **y != 0.0).count() as f64 / n as f64;
    assert!((kept - 0.75).abs() < 0.005, "{kept}");
    assert!(first.iter().all(|y| *y == 0.0 || *y == (1.0f64 / 0.75) as f32));
    assert_eq!(first, mask(1, [2, 3]));
    for other in [mask(2, [2, 3]), mask(1, [3, 3]), mask(1, [2, 4])] {
        let same = first.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / n as f64;
        assert!((same - 0.625).abs() < 0.01, "{same}");
    }
    assert!(DropoutMask::<f32>::new(0, 1.0, In::of(&[0; 2]), Out::of(&mut [])).is_err());
}

#[test]
fn fills_and_copies_cover_everything() {
    let x = noise(100_000, 8);
    let [y] = outputs([x.len()], |[y]| boxed(Copy::new(In::of(&x), y).unwrap()));
    assert_eq!(x, y);
    let [y] = outputs([x.len()], |[y]| boxed(Fill::new(1.5, y)));
    assert!(y.iter().all(|y| *y == 1.5));
}

#[test]
fn wrong_lengths_are_refused() {
    let mut y = [0.0f32; 4];
    assert!(Copy::new(In::of(&[0.0f32; 3]), Out::of(&mut y)).is_err());
    assert!(StridedCopy::new(&[2, 2], &[2, 1], 1, In::of(&[0.0f32; 4]), Out::of(&mut y)).is_err());
    assert!(Embedding::new(2, In::of(&[0.0f32; 4]), In::of(&[0]), Out::of(&mut y)).is_err());
}
