//! `cargo test --release --lib speed -- --ignored --nocapture` prints how fast thin products read their wide side.

use half::bf16;

use super::{MatMul, MatMulSpec, Written};
use crate::kernels::pack::Element;
use crate::kernels::simd::Isa;
use crate::kernels::testing::{Matrix, seconds};
use crate::kernels::{In, Out};

/// u = x A^T, du = dy B and the gradients of both weights, for a wide side that comes from memory.
fn measure<E: Element + Written>(name: &str, [rows, width, rank]: [usize; 3]) {
    let isa = Isa::detect();
    // More bytes than the caches hold.
    let copies = (64 << 20) / (rows * width * size_of::<E>());
    let wide: Vec<_> =
        (0..copies).map(|seed| Matrix::random(rows, width, seed as u64).rounded::<E>()).collect();
    let thin = Matrix::random(rows, rank, 1).rounded::<E>();
    let weight = Matrix::random(width, rank, 2).rounded::<E>();
    print!("{name} {rows} x {width} rank {rank}:");
    let forward = |transpose_right| MatMulSpec {
        batch: 1,
        rows,
        inner: width,
        columns: rank,
        transpose_left: false,
        transpose_right,
        isa,
    };
    let backward = |rows_, columns| MatMulSpec {
        batch: 1,
        rows: rows_,
        inner: rows,
        columns,
        transpose_left: true,
        transpose_right: false,
        isa,
    };
    for (label, spec) in [
        ("x A^T", forward(true)),
        ("dy B", forward(false)),
        ("u^T x", backward(rank, width)),
        ("dy^T u", backward(width, rank)),
    ] {
        let mut product = vec![E::narrow(0.0); spec.rows * spec.columns];
        let kernels: Vec<_> = wide
            .iter()
            .map(|wide| {
                let (left, right) = match label {
                    "u^T x" => (In::of(&thin), In::of(wide)),
                    "dy^T u" => (In::of(wide), In::of(&thin)),
                    _ => (In::of(wide), In::of(&weight)),
                };
                MatMul::new(left, right, Out::of(&mut product), spec).unwrap()
            })
            .collect();
        let total: f64 = (0..8).flat_map(|_| &kernels).map(|kernel| seconds(kernel, 2, 1)).sum::<f64>() / 8.0;
        let bytes = rows * width * size_of::<E>() * copies;
        print!(" {label} {:.2} ms, {:.0} GB/s;", 1e3 * total / copies as f64, bytes as f64 / total / 1e9);
    }
    println!();
}

#[test]
#[ignore = "measures speed"]
fn speed_of_thin_products() {
    for shape in [[2048, 192, 8], [2048, 576, 8], [2048, 576, 24], [2048, 1536, 8], [2048, 1536, 16]] {
        measure::<f32>("f32 ", shape);
        measure::<bf16>("bf16", shape);
    }
}
