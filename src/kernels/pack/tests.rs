use half::bf16;

use super::{Element, PANEL, Pack, PackSpec, TransposedPanel, packed_len, words};
use crate::kernels::simd::Isa;
use crate::kernels::testing::{Matrix, run};
use crate::kernels::{In, Out};

fn pack<D: Element>(weight: &Matrix) -> Vec<D> {
    let (outputs, inputs) = (weight.rows, weight.columns);
    let mut packed = vec![D::narrow(f32::NAN); packed_len::<D>(outputs, inputs)];
    run(&Pack::new(weight.span(), Out::of(&mut packed), PackSpec { outputs, inputs }).unwrap());
    packed
}

/// Checks panels [k / PAIR, PANEL, PAIR] of so many columns against the value of (column, k).
fn check_panels<D: Element + PartialEq + std::fmt::Debug>(
    panels: &[D],
    (columns, inputs): (usize, usize),
    weight: impl Fn(usize, usize) -> f32,
) {
    let panel_len = packed_len::<D>(PANEL, inputs);
    for (panel, values) in panels.chunks(panel_len).enumerate() {
        for (i, &value) in values.iter().enumerate() {
            let column = panel * PANEL + i / D::PAIR % PANEL;
            let k = i / (PANEL * D::PAIR) * D::PAIR + i % D::PAIR;
            if column < columns {
                let expected = D::narrow(if k < inputs { weight(column, k) } else { 0.0 });
                assert_eq!(value, expected, "({column}, {k}) of {columns} x {inputs}");
            }
        }
    }
}

fn check<D: Element + PartialEq + std::fmt::Debug>(outputs: usize, inputs: usize) {
    let weight = Matrix::random(outputs, inputs, 5);
    let packed = pack::<D>(&weight);
    check_panels(&packed, (outputs, inputs), |column, k| weight.values[column * inputs + k]);
    assert!(packed[packed.len() - packed_len::<D>(PANEL, inputs)..].iter().all(|x| x.widen().is_finite()));

    for isa in Isa::available() {
        for first in (0..inputs).step_by(PANEL) {
            let panels = outputs.div_ceil(PANEL);
            let mut to = vec![f32::NAN; TransposedPanel::<D>::words(panels)];
            let to_panel = TransposedPanel { packed: &packed, inputs, first, panels: 0..panels, to: &mut to };
            isa.run(to_panel);
            let panel = &bytemuck::cast_slice::<f32, D>(&to)[..words::<D>(outputs) * PANEL * D::PAIR];
            let columns = PANEL.min(inputs - first);
            check_panels(panel, (columns, outputs), |column, k| weight.values[k * inputs + first + column]);
        }
    }
}

#[test]
fn panels_hold_every_weight_both_ways() {
    for (outputs, inputs) in [(1, 1), (32, 2), (33, 7), (70, 64), (300, 5), (31, 33), (64, 97)] {
        check::<f32>(outputs, inputs);
        check::<bf16>(outputs, inputs);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let weight = [0.0f32; 6];
    let mut packed = [0.0f32; 63];
    let spec = PackSpec { outputs: 3, inputs: 2 };
    assert!(Pack::new(In::of(&weight), Out::of(&mut packed), spec).is_err());
}
