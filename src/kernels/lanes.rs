//! Elementwise maps and sums of products over rows of f32 or bf16, a vector at a time.

use half::bf16;

use super::number::Element;
use super::simd::Vector;

/// Lanes of the widest vector.
const WIDEST: usize = 16;

/// A function of elements. Methods rather than closures: closures are compiled before they are inlined, without the
/// instruction set.
pub trait Map<const INPUTS: usize, const OUTPUTS: usize> {
    /// Must be `#[inline(always)]`.
    fn apply<V: Vector>(&self, inputs: [V; INPUTS]) -> [V; OUTPUTS];
}

/// # Safety
/// `from` is valid for reading a vector's lanes of elements.
#[inline(always)]
unsafe fn load<V: Vector, E: Element>(from: *const E) -> V {
    // SAFETY: promised by the caller; an element of two bytes is a bf16, any other an f32.
    unsafe {
        if size_of::<E>() == size_of::<bf16>() { V::load_bf16(from.cast()) } else { V::load(from.cast()) }
    }
}

/// # Safety
/// `to` is valid for writing a vector's lanes of elements.
#[inline(always)]
unsafe fn store<V: Vector, E: Element>(values: V, to: *mut E) {
    // SAFETY: promised by the caller; an element of two bytes is a bf16, any other an f32.
    unsafe {
        if size_of::<E>() == size_of::<bf16>() {
            values.store_bf16(to.cast())
        } else {
            values.store(to.cast())
        }
    }
}

/// outputs = f(inputs), element by element.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn map<V: Vector, E: Element, const INPUTS: usize, const OUTPUTS: usize>(
    f: &impl Map<INPUTS, OUTPUTS>,
    inputs: [&[E]; INPUTS],
    mut outputs: [&mut [E]; OUTPUTS],
) {
    let len = inputs[0].len();
    let whole = len - len % V::LANES;
    for input in &inputs {
        assert!(input.len() == len, "rows of {} and {len} elements", input.len());
    }
    for output in &outputs {
        assert!(output.len() == len, "rows of {} and {len} elements", output.len());
    }
    for at in (0..whole).step_by(V::LANES) {
        let (mut from, mut to) = ([std::ptr::null(); INPUTS], [std::ptr::null_mut(); OUTPUTS]);
        for (from, input) in from.iter_mut().zip(&inputs) {
            *from = input[at..].as_ptr();
        }
        for (to, output) in to.iter_mut().zip(&mut outputs) {
            *to = output[at..].as_mut_ptr();
        }
        // SAFETY: a whole vector follows `at` in each row.
        unsafe { step::<V, E, INPUTS, OUTPUTS>(f, from, to) };
    }
    if whole == len {
        return;
    }
    // The rest, with zeros behind.
    let (mut last_inputs, mut last_outputs) =
        ([[E::zeroed(); WIDEST]; INPUTS], [[E::zeroed(); WIDEST]; OUTPUTS]);
    let (mut from, mut to) = ([std::ptr::null(); INPUTS], [std::ptr::null_mut(); OUTPUTS]);
    for ((from, last), input) in from.iter_mut().zip(&mut last_inputs).zip(&inputs) {
        last[..len - whole].copy_from_slice(&input[whole..]);
        *from = last.as_ptr();
    }
    for (to, last) in to.iter_mut().zip(&mut last_outputs) {
        *to = last.as_mut_ptr();
    }
    // SAFETY: the copies are as long as any vector.
    unsafe { step::<V, E, INPUTS, OUTPUTS>(f, from, to) };
    for (last, output) in last_outputs.iter().zip(&mut outputs) {
        output[whole..].copy_from_slice(&last[..len - whole]);
    }
}

/// # Safety
/// All pointers are valid for a vector's lanes of elements.
#[inline(always)]
unsafe fn step<V: Vector, E: Element, const INPUTS: usize, const OUTPUTS: usize>(
    f: &impl Map<INPUTS, OUTPUTS>,
    from: [*const E; INPUTS],
    to: [*mut E; OUTPUTS],
) {
    let mut x = [V::zero(); INPUTS];
    for (x, from) in x.iter_mut().zip(from) {
        // SAFETY: promised by the caller.
        *x = unsafe { load(from) };
    }
    for (y, to) in f.apply(x).into_iter().zip(to) {
        // SAFETY: promised by the caller.
        unsafe { store(y, to) };
    }
}

/// Sum of the products of elements at the same place, in four sums of vectors.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn sum_of_products<V: Vector, E: Element, const FACTORS: usize>(rows: [&[E]; FACTORS]) -> f32 {
    let len = rows[0].len();
    for row in &rows {
        assert!(row.len() == len, "rows of {} and {len} elements", row.len());
    }
    let (whole, blocks) = (len - len % V::LANES, len - len % (4 * V::LANES));
    let mut sums = [V::zero(); 4];
    for start in (0..blocks).step_by(4 * V::LANES) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: four whole vectors follow `start` in each row.
            *sum = unsafe { add_product(*sum, &rows, start + i * V::LANES) };
        }
    }
    for at in (blocks..whole).step_by(V::LANES) {
        // SAFETY: a whole vector follows `at` in each row.
        sums[0] = unsafe { add_product(sums[0], &rows, at) };
    }
    // The rest, with zeros behind.
    let mut last = [[E::zeroed(); WIDEST]; FACTORS];
    let mut copies = rows;
    for ((copy, last), row) in copies.iter_mut().zip(&mut last).zip(&rows) {
        last[..len - whole].copy_from_slice(&row[whole..]);
        *copy = last;
    }
    // SAFETY: the copies are as long as any vector.
    sums[1] = unsafe { add_product(sums[1], &copies, 0) };
    sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
}

/// # Safety
/// Each row has a vector's lanes of elements from `at` on.
#[inline(always)]
unsafe fn add_product<V: Vector, E: Element, const FACTORS: usize>(
    sum: V,
    rows: &[&[E]; FACTORS],
    at: usize,
) -> V {
    let mut product = V::splat(1.0);
    for (i, row) in rows.iter().enumerate().skip(1) {
        // SAFETY: promised by the caller.
        let x = unsafe { load(row.as_ptr().add(at)) };
        product = if i == 1 { x } else { product.mul(x) };
    }
    // SAFETY: promised by the caller.
    unsafe { load::<V, E>(rows[0].as_ptr().add(at)) }.mul_add(product, sum)
}
