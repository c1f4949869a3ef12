//! Products with adapters' matrices.

use bytemuck::Zeroable;
use lazytune::graph::{LowRank, Operation, Scalar};
use lazytune::kernels::metal::ProductSpec;
use lazytune::kernels::metal::launch;

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Buffer, Gpu, activations, floats, no_floats, nothing};

/// left right^T, or of their transposes, in f64.
fn product(spec: &ProductSpec, left: &[f32], right: &[f32]) -> Vec<f64> {
    let (rows, columns, depth) = (spec.rows as usize, spec.columns as usize, spec.depth as usize);
    let at = |values: &[f32], across: u32, extent: usize, outer: usize, inner: usize| {
        f64::from(if across != 0 { values[inner * extent + outer] } else { values[outer * depth + inner] })
    };
    let element = |i: usize, j: usize| -> f64 {
        let terms = (0..depth)
            .map(|k| at(left, spec.left_across, rows, i, k) * at(right, spec.right_across, columns, j, k));
        f64::from(spec.scale) * terms.sum::<f64>()
    };
    (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect()
}

fn spec([rows, columns, depth]: [u32; 3], [left_across, right_across, add]: [u32; 3]) -> ProductSpec {
    let scale = 0.5;
    ProductSpec {
        rows,
        columns,
        depth,
        left_across,
        right_across,
        add,
        scale,
        splits: 1,
        ..ProductSpec::zeroed()
    }
}

pub fn check(gpu: &Gpu) -> Outcome {
    // Every layout of both factors, in place and not, ragged; a product may be missing.
    let ragged = [spec([37, 45, 50], [0, 0, 0]), spec([70, 8, 33], [1, 0, 1]), spec([5, 33, 16], [0, 1, 1])];
    let sums = [spec([9, 70, 75], [1, 1, 0]), spec([16, 40, 75], [1, 1, 1]), ProductSpec::zeroed()];
    for (case, specs) in [ragged, sums].into_iter().enumerate() {
        check_products(gpu, specs, 10 * case as u64)?;
    }
    check_low_rank(gpu)
}

fn check_products(gpu: &Gpu, mut specs: [ProductSpec; 3], seed: u64) -> Outcome {
    let sizes = |f: fn(&ProductSpec) -> u32| specs.each_ref().map(|spec| (f(spec) * spec.depth) as usize);
    let values =
        |sizes: [usize; 3], seed: u64| [0, 1, 2].map(|i| gpu.round(noise(sizes[i], seed + i as u64)));
    let left = values(sizes(|spec| spec.rows), seed);
    let right = values(sizes(|spec| spec.columns), seed + 3);
    let before = values(specs.each_ref().map(|spec| (spec.rows * spec.columns) as usize), seed + 6);
    // What is not added to may hold anything.
    let start = |i: usize| if specs[i].add != 0 { activations(&before[i]) } else { nothing(before[i].len()) };
    let starts = [0, 1, 2].map(start);
    let expected = [0, 1, 2].map(|i| {
        let mut sums = product(&specs[i], &left[i], &right[i]);
        if specs[i].add != 0 {
            sums.iter_mut().zip(&before[i]).for_each(|(sum, &y)| *sum += f64::from(y));
        }
        sums
    });
    let factors: Vec<Buffer> = left.iter().chain(&right).map(|values| activations(values)).collect();
    let tolerance = gpu.tolerance(2e-6);

    let mut whole = factors.clone();
    whole.extend(starts.clone());
    gpu.run(&launch::products(&specs), &mut whole)?;
    for i in 0..3 {
        close(&format!("product {i}"), whole[6 + i].floats(), &expected[i], tolerance)?;
    }

    for threadgroups in [1, 40] {
        let partials = launch::split(&mut specs, threadgroups);
        let mut shares = factors.clone();
        shares.push(no_floats(partials as usize));
        gpu.run(&launch::product_partials(&specs), &mut shares)?;
        let mut sums = vec![shares.pop().unwrap()];
        sums.extend(starts.clone());
        gpu.run(&launch::add_partials(&specs), &mut sums)?;
        for i in 0..3 {
            close(&format!("split product {i}"), sums[1 + i].floats(), &expected[i], tolerance)?;
        }
        let wide = starts.iter().map(|start| floats(start.floats()));
        let mut sums: Vec<Buffer> = sums.drain(..1).chain(wide).collect();
        gpu.run(&launch::add_wide_partials(&specs), &mut sums)?;
        for i in 0..3 {
            close(&format!("wide product {i}"), sums[1 + i].floats(), &expected[i], 2e-6)?;
        }
    }
    Ok(())
}

/// x W^T + scale u v^T with an adapter of v [outputs, rank], as three products that add up, against the CPU's kernel.
fn check_low_rank(gpu: &Gpu) -> Outcome {
    let (n, inputs, outputs, rank) = (19, 40, 34, 6);
    let random = |n: usize, seed: u64| activations(&gpu.round(noise(n, seed)));
    let (x, weight) = (random(n * inputs, 1), random(outputs * inputs, 2));
    let (u, v) = (random(n * rank, 3), random(outputs * rank, 4));
    let extents = |depth: usize| [n as u32, outputs as u32, depth as u32];
    let base = ProductSpec { scale: 1.0, ..spec(extents(inputs), [0, 0, 0]) };
    let (none, empty) = (ProductSpec::zeroed(), nothing(0));
    let run = |spec: ProductSpec, left: &Buffer, right: &Buffer, y: Buffer| {
        let [a, b] = [&empty, &empty].map(Clone::clone);
        let mut buffers = [left.clone(), a.clone(), b.clone(), right.clone(), a.clone(), b.clone(), y, a, b];
        gpu.run(&launch::products(&[spec, none, none]), &mut buffers)?;
        Ok::<_, String>(buffers[6].clone())
    };
    let y = run(base, &x, &weight, nothing(n * outputs))?;
    let y = run(spec(extents(rank), [0, 0, 1]), &u, &v, y)?;
    let operation = Operation::Linear {
        transpose_weight: false,
        low_rank: Some(LowRank { scale: Scalar(0.5), transpose: false }),
        residual: false,
    };
    let dims: [[usize; 2]; 5] = [[n, inputs], [outputs, inputs], [n, rank], [outputs, rank], [n, outputs]];
    let inputs = [(&dims[0][..], &x), (&dims[1][..], &weight), (&dims[2][..], &u), (&dims[3][..], &v)];
    // Of bf16, the sum is rounded once more on the way.
    agrees_with_cpu(gpu, &operation, &inputs, &[(&dims[4][..], &y)], 2.0 * gpu.tolerance(2e-6))
}
