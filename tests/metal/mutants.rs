//! Every barrier is needed: without it some check fails.

use lazytune::kernels::metal::Element;

use crate::checks::{CHECKS, Check, Outcome};
use crate::compiler::can_compile;
use crate::gpu::Gpu;
use crate::source::declarations;

/// Runs the checks that can reach a place, until one fails.
fn outcome(place: &str) -> Outcome {
    let file = place.split(':').next().unwrap();
    let reaches = |check: &&Check| match file {
        "prelude.metal" => true,
        "tile.metal" => check.file == "products.metal",
        _ => check.file == file,
    };
    let reach = CHECKS.iter().filter(reaches);
    for check in reach {
        for &head_dim in check.head_dims {
            for tree_reduction in [0, 1] {
                let gpu = Gpu::new(Element::F32, head_dim);
                let constants = vec![tree_reduction];
                (check.run)(&Gpu { constants, skipped: Some(place.to_owned()), ..gpu })?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_missing_barrier_fails_a_check() {
    if !can_compile() {
        return;
    }
    let barriers = declarations().barriers;
    assert!(!barriers.is_empty());
    let survivors: Vec<&String> = barriers.iter().filter(|place| outcome(place).is_ok()).collect();
    assert!(survivors.is_empty(), "no check misses the barriers at {survivors:?}");
}
