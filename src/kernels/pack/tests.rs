use half::bf16;

use super::{Element, PANEL, Pack, PackSpec, packed_len};
use crate::kernels::testing::{Matrix, run};
use crate::kernels::{In, Out};

fn check<D: Element + PartialEq + std::fmt::Debug>(outputs: usize, inputs: usize) {
    let weight = Matrix::random(outputs, inputs, 5);
    for transpose_weight in [false, true] {
        let stored = if transpose_weight { weight.transposed() } else { weight.transposed().transposed() };
        let mut packed = vec![D::from_f32(f32::NAN); packed_len::<D>(outputs, inputs)];
        let spec = PackSpec { outputs, inputs, transpose_weight };
        run(&Pack::new(stored.span(), Out::of(&mut packed), spec).unwrap());
        let depth = inputs.next_multiple_of(D::PAIR);
        for (panel, values) in packed.chunks(depth * PANEL).enumerate() {
            for (i, &value) in values.iter().enumerate() {
                let column = panel * PANEL + i / D::PAIR % PANEL;
                let k = i / (PANEL * D::PAIR) * D::PAIR + i % D::PAIR;
                let inside = column < outputs && k < inputs;
                let expected = if inside { D::from_f32(weight.values[column * inputs + k]) } else { D::ZERO };
                assert_eq!(value, expected, "({column}, {k}) of {outputs} x {inputs}");
            }
        }
    }
}

#[test]
fn panels_hold_every_weight_and_zeros_beyond() {
    for (outputs, inputs) in [(1, 1), (32, 2), (33, 7), (70, 64), (300, 5)] {
        check::<f32>(outputs, inputs);
        check::<bf16>(outputs, inputs);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let weight = [0.0f32; 6];
    let mut packed = [0.0f32; 63];
    let spec = PackSpec { outputs: 3, inputs: 2, transpose_weight: false };
    assert!(Pack::new(In::of(&weight), Out::of(&mut packed), spec).is_err());
}
