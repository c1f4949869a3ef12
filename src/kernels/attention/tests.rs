//! Against attention written out in f64 with whole score matrices.

use half::bf16;
use proptest::prelude::*;

use super::{Attention, AttentionGrad, AttentionGradInputs, CachedAttention};
use crate::graph::{AttentionSpec, Scalar};
use crate::kernels::body::FORCED;
use crate::kernels::number::Element;
use crate::kernels::simd::Isa;
use crate::kernels::testing::{cases, noise, outputs, relative_error, report, run, widen};
use crate::kernels::{In, Kernel, Out};

struct Reference {
    out: Vec<f64>,
    lse: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `sees(query, key)` takes rows of all matrices.
fn reference(
    spec: &AttentionSpec,
    [q, k, v, dout]: [&[f64]; 4],
    sees: impl Fn(usize, usize) -> bool,
) -> Reference {
    let (d, group) = (spec.head_dim, spec.heads / spec.kv_heads);
    let queries = q.len() / (spec.heads * d);
    let keys = k.len() / (spec.kv_heads * d);
    let mut r = Reference {
        out: vec![0.0; q.len()],
        lse: vec![0.0; queries * spec.heads],
        dq: vec![0.0; q.len()],
        dk: vec![0.0; k.len()],
        dv: vec![0.0; v.len()],
    };
    // A scaled score after its cap, and the derivative there.
    let capped = |s: f64| match spec.soft_cap {
        Some(Scalar(cap)) => (cap * (s / cap).tanh(), 1.0 - (s / cap).tanh().powi(2)),
        None => (s, 1.0),
    };
    for row in 0..queries * spec.heads {
        let (i, head) = (row / spec.heads, row % spec.heads);
        let at = row * d..row * d + d;
        let seen: Vec<_> = (0..keys)
            .filter(|&j| sees(i, j))
            .map(|j| (j * spec.kv_heads + head / group) * d)
            .map(|key| (key, capped(dot(&q[at.clone()], &k[key..key + d]) * spec.scale.0)))
            .collect();
        let maximum = seen.iter().fold(f64::NEG_INFINITY, |m, (_, (s, _))| m.max(*s));
        let lse = maximum + seen.iter().map(|(_, (s, _))| (s - maximum).exp()).sum::<f64>().ln();
        r.lse[row] = lse;
        for (key, (s, _)) in &seen {
            for x in 0..d {
                r.out[at.start + x] += (s - lse).exp() * v[key + x];
            }
        }
        let delta = dot(&r.out[at.clone()], &dout[at.clone()]);
        for (key, (s, slope)) in &seen {
            let p = (s - lse).exp();
            let ds = p * (dot(&dout[at.clone()], &v[*key..key + d]) - delta) * slope * spec.scale.0;
            for x in 0..d {
                r.dv[key + x] += p * dout[at.start + x];
                r.dk[key + x] += ds * q[at.start + x];
                r.dq[at.start + x] += ds * k[key + x];
            }
        }
    }
    r
}

fn in_window(spec: &AttentionSpec, i: usize, j: usize) -> bool {
    j <= i && spec.window.is_none_or(|window| i - j < window)
}

fn check_training(spec: AttentionSpec, segments: &[u32], seed: u64) {
    let n = spec.batch * spec.seq;
    let (wide, narrow) = (n * spec.heads * spec.head_dim, n * spec.kv_heads * spec.head_dim);
    let (q, k) = (noise(wide, seed), noise(narrow, seed + 1));
    let (v, dout) = (noise(narrow, seed + 2), noise(wide, seed + 3));
    let wides = [&q, &k, &v, &dout].map(|x| widen(x));
    let expected = reference(&spec, wides.each_ref().map(|x| &x[..]), |i, j| {
        i / spec.seq == j / spec.seq && in_window(&spec, i, j) && segments[i] == segments[j]
    });
    let [out, lse] = outputs([wide, n * spec.heads], |[out, lse]| {
        let qkv = [In::of(&q), In::of(&k), In::of(&v)];
        Box::new(Attention::new(spec, qkv, In::of(segments), out, lse).unwrap())
    });
    // Rounding of tanh is multiplied by the cap.
    let bound = if spec.soft_cap.is_some() { 2e-5 } else { 2e-6 };
    assert!(relative_error(&out, &expected.out) < bound, "{spec:?} out");
    assert!(relative_error(&lse, &expected.lse) < bound, "{spec:?} lse");
    let [dq, dk, dv] = outputs([wide, narrow, narrow], |gradients| {
        let inputs = AttentionGradInputs {
            q: In::of(&q),
            k: In::of(&k),
            v: In::of(&v),
            segments: In::of(segments),
            out: In::of(&out),
            lse: In::of(&lse),
            dout: In::of(&dout),
        };
        Box::new(AttentionGrad::new(spec, inputs, gradients).unwrap())
    });
    for (name, actual, expected) in
        [("dq", dq, expected.dq), ("dk", dk, expected.dk), ("dv", dv, expected.dv)]
    {
        let error = relative_error(&actual, &expected);
        assert!(error < 5.0 * bound, "{spec:?} {name}: {error:e}");
    }
}

fn spec(batch: usize, seq: usize, kv_heads: usize, group: usize, head_dim: usize) -> AttentionSpec {
    let scale = Scalar(1.0 / (head_dim as f64).sqrt());
    AttentionSpec {
        batch,
        seq,
        heads: kv_heads * group,
        kv_heads,
        head_dim,
        scale,
        window: None,
        soft_cap: None,
    }
}

/// Window and soft cap, if any.
fn variant() -> impl Strategy<Value = (Option<usize>, Option<f64>)> {
    (prop::option::of(1usize..150), prop::option::of(0.5..30.0))
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn ragged_shapes_and_segments(
        (batch, seq) in (1usize..4, 1usize..70),
        (kv_heads, group) in (1usize..4, 1usize..4),
        head_dim in 4usize..80,
        lengths in prop::collection::vec(1usize..40, 1..8),
        (window, cap) in variant(),
        seed in 0u64..1000,
    ) {
        let numbers = lengths.iter().enumerate().flat_map(|(i, n)| std::iter::repeat_n(i as u32, *n));
        let segments: Vec<u32> = numbers.cycle().take(batch * seq).collect();
        let spec = spec(batch, seq, kv_heads, group, head_dim);
        check_training(AttentionSpec { window, soft_cap: cap.map(Scalar), ..spec }, &segments, seed);
    }

    #[test]
    fn cached_attention_continues_a_sequence(
        (n, start, spare) in (prop_oneof![Just(1), 1usize..70], 0usize..150, 0usize..5),
        (kv_heads, group) in (1usize..4, 1usize..4),
        head_dim in 4usize..80,
        (window, cap) in variant(),
        seed in 0u64..1000,
    ) {
        let spec = spec(1, n, kv_heads, group, head_dim);
        let spec = AttentionSpec { window, soft_cap: cap.map(Scalar), ..spec };
        let narrow = (start + n + spare) * kv_heads * head_dim;
        let q = noise(n * spec.heads * head_dim, seed);
        let (keys, values) = (noise(narrow, seed + 1), noise(narrow, seed + 2));
        let wides = [&q, &keys, &values, &q].map(|x| widen(x));
        let expected = reference(&spec, wides.each_ref().map(|x| &x[..]), |i, j| in_window(&spec, start + i, j));
        let first = [start as u32];
        let [out] = outputs([q.len()], |[out]| {
            let qkv = [In::of(&q), In::of(&keys), In::of(&values)];
            Box::new(CachedAttention::new(spec, qkv, In::of(&first), out).unwrap())
        });
        let bound = if cap.is_some() { 2e-5 } else { 2e-6 };
        prop_assert!(relative_error(&out, &expected.out) < bound);
    }
}

#[test]
fn several_tiles_with_whole_heads_and_with_separate_parts() {
    for (batch, kv_heads) in [(1, 2), (2, 4)] {
        let segments: Vec<u32> = (0..batch * 300).map(|i| (i as u32 % 300) / 170).collect();
        let spec = spec(batch, 300, kv_heads, 2, 64);
        check_training(spec, &segments, 7);
        for window in [1, 40, 130, 250] {
            check_training(AttentionSpec { window: Some(window), ..spec }, &segments, 8);
        }
    }
}

#[test]
fn an_unknown_score_shows_in_the_result() {
    let spec = spec(1, 3, 1, 1, 4);
    let (mut q, kv) = (noise(12, 1), noise(12, 2));
    q[5] = f32::NAN;
    let [out, _] = outputs([12, 3], |[out, lse]| {
        Box::new(
            Attention::new(spec, [In::of(&q), In::of(&kv), In::of(&kv)], In::of(&[0; 3]), out, lse).unwrap(),
        )
    });
    assert!(out[4..8].iter().all(|x| x.is_nan()) && out[..4].iter().all(|x| !x.is_nan()));
}

fn rounded(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

fn widened(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// Results [out, dq, dk, dv] and log-sum-exp of bf16 inputs, with parts for so many threads.
fn train_in_bf16(
    spec: AttentionSpec,
    inputs: &[Vec<bf16>; 4],
    segments: &[u32],
    threads: usize,
) -> ([Vec<f32>; 4], Vec<f32>) {
    let [q, k, v, dout] = inputs;
    let nothing = |x: &[bf16]| vec![bf16::NAN; x.len()];
    let (mut out, mut lse) = (nothing(q), vec![f32::NAN; segments.len() * spec.heads]);
    let (mut dq, mut dk, mut dv) = (nothing(q), nothing(k), nothing(v));
    let qkv = [In::of(q), In::of(k), In::of(v)];
    let spans = (Out::of(&mut out), Out::of(&mut lse));
    run(&Attention::new(spec, qkv, In::of(segments), spans.0, spans.1).unwrap());
    let inputs = AttentionGradInputs {
        q: In::of(q),
        k: In::of(k),
        v: In::of(v),
        segments: In::of(segments),
        out: In::of(&out),
        lse: In::of(&lse),
        dout: In::of(dout),
    };
    let gradients = [Out::of(&mut dq), Out::of(&mut dk), Out::of(&mut dv)];
    let mut gradient = AttentionGrad::new(spec, inputs, gradients).unwrap();
    gradient.threads = threads;
    run(&gradient);
    ([out, dq, dk, dv].map(|x| widened(&x)), lse)
}

proptest! {
    #![proptest_config(cases(40))]

    /// Results, probabilities and scores' gradients are rounded to 8 bits: each result within a few units in the last
    /// place of the largest; the log-sum-exp comes before any rounding.
    #[test]
    fn bf16_stays_within_its_rounding(
        (batch, seq) in (1usize..3, 1usize..200),
        (kv_heads, group) in (1usize..3, 1usize..5),
        head_dim in 1usize..80,
        length in 1usize..300,
        seed in 0u64..1000,
    ) {
        let spec = spec(batch, seq, kv_heads, group, head_dim);
        let n = batch * seq;
        let segments: Vec<u32> = (0..n).map(|i| (i % seq / length) as u32).collect();
        let (wide, narrow) = (n * kv_heads * group * head_dim, n * kv_heads * head_dim);
        let inputs = [(wide, 0), (narrow, 1), (narrow, 2), (wide, 3)].map(|(n, i)| rounded(&noise(n, seed + i)));
        let exact = inputs.each_ref().map(|x| widen(&widened(x)));
        let expected = reference(&spec, exact.each_ref().map(|x| &x[..]), |i, j| {
            i / seq == j / seq && j <= i && segments[i] == segments[j]
        });
        for isa in Isa::available() {
            FORCED.set(Some(isa));
            let (actual, lse) = train_in_bf16(spec, &inputs, &segments, 2);
            prop_assert!(relative_error(&lse, &expected.lse) < 2e-6, "{:?} lse", isa);
            let references = [&expected.out, &expected.dq, &expected.dk, &expected.dv];
            for (i, (actual, expected)) in actual.iter().zip(references).enumerate() {
                let error = relative_error(actual, expected);
                prop_assert!(error < 3.0 / 256.0, "{:?} result {}: {:e}", isa, i, error);
            }
            FORCED.set(None);
        }
    }
}

#[test]
fn bands_change_no_bit() {
    let (spec, n) = (spec(1, 700, 3, 3, 64), 700);
    let segments: Vec<u32> = (0..n as u32).map(|i| i / 450).collect();
    let inputs =
        [(n * 576, 1), (n * 192, 2), (n * 192, 3), (n * 576, 4)].map(|(n, seed)| rounded(&noise(n, seed)));
    let expected = train_in_bf16(spec, &inputs, &segments, 1);
    for threads in [2, 4, 7, 16, 100] {
        assert!(train_in_bf16(spec, &inputs, &segments, threads) == expected, "{threads} threads");
    }
}

/// GFLOP/s for SmolLM2-135M at 4 x 512 and 1 x 1024, counted triangular.
#[test]
#[ignore = "measures"]
fn speed() {
    for (batch, seq) in [(4, 512), (1, 1024), (1, 256), (4, 256)] {
        speed_of(batch, seq, "f32", |x| x);
        speed_of(batch, seq, "bf16", bf16::from_f32);
    }
}

fn speed_of<E: Element>(batch: usize, seq: usize, name: &str, convert: impl Fn(f32) -> E + Copy) {
    let spec = spec(batch, seq, 3, 3, 64);
    let n = batch * seq;
    let random = |n, seed| noise(n, seed).into_iter().map(convert).collect::<Vec<E>>();
    let (wide, narrow) = (n * 576, n * 192);
    let (q, k, v, dout) = (random(wide, 1), random(narrow, 2), random(narrow, 3), random(wide, 4));
    let segments = vec![0; n];
    let (mut out, mut lse) = (random(wide, 5), vec![0.0; n * 9]);
    let (mut dq, mut dk, mut dv) = (random(wide, 6), random(narrow, 7), random(narrow, 8));
    let pairs = (batch * 9 * seq * (seq + 1) / 2) as f64;
    let qkv = [In::of(&q), In::of(&k), In::of(&v)];
    let forward = Attention::new(spec, qkv, In::of(&segments), Out::of(&mut out), Out::of(&mut lse)).unwrap();
    let inputs = AttentionGradInputs {
        q: In::of(&q),
        k: In::of(&k),
        v: In::of(&v),
        segments: In::of(&segments),
        out: In::of(&out),
        lse: In::of(&lse),
        dout: In::of(&dout),
    };
    let gradients = [Out::of(&mut dq), Out::of(&mut dk), Out::of(&mut dv)];
    let backward = AttentionGrad::new(spec, inputs, gradients).unwrap();
    let batches = [("forward", &forward as &dyn Kernel, 4.0), ("backward", &backward, 10.0)];
    for (pass, kernel, flops) in batches {
        report(&format!("attention {batch} x {seq} {name} {pass}"), kernel, pairs * 64.0 * flops, "GFLOP/s");
    }
}
