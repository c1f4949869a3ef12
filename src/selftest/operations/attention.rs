//! Causal grouped-query attention and its gradient: packed rows, sliding windows, capped scores, wide heads.

use crate::graph::{AttentionSpec, LazyTensor, Operation, Scalar};
use crate::selftest::case::{Build, Case, Element, Formula, Leaf};
use crate::selftest::sizes::Sizes;

/// Widest heads of the models that are trained.
const WIDE_HEAD: usize = 128;

pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let spec = AttentionSpec {
        batch: sizes.batch,
        seq: sizes.seq,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        scale: Scalar(1.0 / (sizes.head_dim as f64).sqrt()),
        window: None,
        soft_cap: None,
    };
    let window = AttentionSpec { window: Some(sizes.window), ..spec };
    let capped = AttentionSpec { soft_cap: Some(Scalar(2.0)), ..spec };
    let wide = AttentionSpec {
        heads: sizes.kv_heads,
        kv_heads: 1,
        head_dim: WIDE_HEAD,
        scale: Scalar(1.0 / (WIDE_HEAD as f64).sqrt()),
        ..spec
    };
    [
        ("", spec, sizes.seq),
        (", packed", spec, sizes.packed),
        (", window", window, sizes.seq),
        (", soft cap", capped, sizes.seq),
        (", heads of 128", wide, sizes.seq),
    ]
    .into_iter()
    .flat_map(|(what, spec, packed)| [forward(what, spec, packed), backward(what, spec, packed)])
    .collect()
}

/// Sequences of `packed` tokens, one after the other in each row.
fn segments(spec: &AttentionSpec, packed: usize) -> Leaf {
    Leaf::ids((0..spec.batch * spec.seq).map(|token| (token % spec.seq / packed) as u32).collect())
}

fn queries(spec: &AttentionSpec) -> [usize; 2] {
    [spec.batch * spec.seq, spec.heads * spec.head_dim]
}

/// q, k, v and segments.
fn operands(spec: &AttentionSpec, packed: usize) -> Vec<Leaf> {
    let keys = [spec.batch * spec.seq, spec.kv_heads * spec.head_dim];
    vec![
        Leaf::activation(&queries(spec)),
        Leaf::activation(&keys),
        Leaf::activation(&keys),
        segments(spec, packed),
    ]
}

fn attend(spec: AttentionSpec) -> impl Fn(&[LazyTensor]) -> LazyTensor {
    move |leaves| leaves[0].then(Operation::Attention(spec), &[&leaves[1], &leaves[2], &leaves[3]])
}

/// The output, then the log-sum-exp, whose plain form nothing needs.
fn forward(what: &str, spec: AttentionSpec, packed: usize) -> Case {
    let kernel = move |leaves: &[LazyTensor]| {
        let y = attend(spec)(leaves);
        vec![y.output(0), y.output(1)]
    };
    let values: Build = Box::new(move |leaves| vec![attend(spec)(leaves).output(0)]);
    let case = Case::new(format!("Attention{what}"), operands(&spec, packed), kernel);
    Case { formula: Formula::Values(values), ..case }
}

fn backward(what: &str, spec: AttentionSpec, packed: usize) -> Case {
    let mut leaves = operands(&spec, packed);
    let statistics = [spec.batch * spec.seq, spec.heads];
    let made = attend(spec);
    leaves.push(Leaf::made(&queries(&spec), Element::Tested, move |leaves| made(leaves).output(0)));
    let made = attend(spec);
    leaves.push(Leaf::made(&statistics, Element::Single, move |leaves| made(leaves).output(1)));
    leaves.push(Leaf::activation(&queries(&spec)));
    let kernel = move |leaves: &[LazyTensor]| {
        let others: Vec<&LazyTensor> = leaves[1..].iter().collect();
        let gradient = leaves[0].then(Operation::AttentionGrad(spec), &others);
        (0..3).map(|output| gradient.output(output)).collect()
    };
    let case = Case::new(format!("AttentionGrad{what}"), leaves, kernel);
    case.derivative(move |leaves| attend(spec)(leaves).output(0), 6, &[0, 1, 2])
}
