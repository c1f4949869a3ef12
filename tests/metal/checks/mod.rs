//! What each kernel has to compute. A check runs kernels on ragged shapes and compares them with formulas in f64 and
//! with the CPU's kernels; it returns what is wrong, so that mutants can be caught by it.

mod adamw;
mod attention;
mod cached_attention;
mod copies;
mod cross_entropy;
mod elementwise;
mod experts;
mod functions;
mod generate;
mod indexed;
mod lowered;
mod lowered_plain;
mod product;
mod products;
mod quantized;
mod reduce;
mod rms_norm;

use half::bf16;
use lazytune::graph::{DType, Operation, Shape, TensorType};
use lazytune::kernels::metal::Element;
use lazytune::kernels::{self, Memory, Operand};

use crate::compiler::can_compile;
use crate::gpu::{Buffer, Gpu};

pub type Outcome = Result<(), String>;

/// A check of the kernels in one file.
pub struct Check {
    pub file: &'static str,
    pub run: fn(&Gpu) -> Outcome,
    /// Widths of heads to compile for.
    pub head_dims: &'static [usize],
}

const fn check(file: &'static str, run: fn(&Gpu) -> Outcome) -> Check {
    Check { file, run, head_dims: &[64] }
}

/// Tiles of 32, 16 and 8 keys; 20 is no multiple of 8.
const HEAD_DIMS: &[usize] = &[64, 20, 128, 136];

pub const CHECKS: &[Check] = &[
    check("rms_norm.metal", rms_norm::check),
    check("rope.metal", elementwise::rope),
    check("gated.metal", elementwise::gated),
    check("bias.metal", elementwise::add_bias),
    check("rows.metal", elementwise::gather_rows),
    check("elementwise.metal", functions::check),
    check("copy.metal", copies::check),
    check("reduce.metal", reduce::check),
    check("indexed.metal", indexed::check),
    check("generate.metal", generate::check),
    check("sum_of_squares.metal", adamw::sum_of_squares),
    check("adamw.metal", adamw::check),
    Check { file: "attention.metal", run: attention::forward, head_dims: HEAD_DIMS },
    Check { file: "attention_gradient.metal", run: attention::gradient, head_dims: HEAD_DIMS },
    Check { file: "cached_attention.metal", run: cached_attention::check, head_dims: HEAD_DIMS },
    check("experts.metal", experts::check),
    check("product.metal", product::check),
    check("products.metal", products::check),
    check("quantized.metal", quantized::check),
    check("cross_entropy.metal", cross_entropy::check),
];

/// Uniform in -1..1 (splitmix64).
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// The largest difference, relative to the largest expected magnitude, stays within the tolerance.
pub fn close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) -> Outcome {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.1f64, |largest, x| largest.max(x.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - e).abs() / scale;
        if error > tolerance || error.is_nan() {
            return Err(format!("{what}: element {i} is {a} instead of {e}: {error:e} of the largest"));
        }
    }
    Ok(())
}

fn tensor_type(element: Element, dims: &[usize], buffer: &Buffer) -> Option<TensorType> {
    let dtype = match (buffer, element) {
        (Buffer::U32(_), _) => DType::U32,
        (Buffer::F32(_), _) | (_, Element::F32) => DType::F32,
        (_, Element::Bf16) => DType::Bf16,
        (_, Element::F16) => return None,
    };
    Some(TensorType::new(Shape::new(dims).unwrap(), dtype))
}

fn bytes_of(dtype: DType, buffer: &Buffer) -> Vec<u8> {
    match (buffer, dtype) {
        (Buffer::U32(ids), _) => ids.iter().flat_map(|id| id.to_ne_bytes()).collect(),
        (_, DType::Bf16) => buffer.floats().iter().flat_map(|&x| bf16::from_f32(x).to_ne_bytes()).collect(),
        _ => buffer.floats().iter().flat_map(|x| x.to_ne_bytes()).collect(),
    }
}

fn floats_of(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::U32 => bytes
            .chunks_exact(4)
            .map(|four| f64::from(u32::from_ne_bytes([four[0], four[1], four[2], four[3]])))
            .collect(),
        DType::Bf16 => bytes
            .chunks_exact(2)
            .map(|two| f64::from(bf16::from_ne_bytes([two[0], two[1]]).to_f32()))
            .collect(),
        _ => bytes
            .chunks_exact(4)
            .map(|four| f64::from(f32::from_ne_bytes([four[0], four[1], four[2], four[3]])))
            .collect(),
    }
}

/// A tensor in the CPU's memory.
struct Tensor {
    tensor: TensorType,
    memory: Memory,
}

impl Tensor {
    /// None where the CPU has no such type.
    fn new(gpu: &Gpu, &(dims, buffer): &(&[usize], &Buffer)) -> Option<Self> {
        let tensor = tensor_type(gpu.element, dims, buffer)?;
        // A packed weight takes more than its elements.
        Some(Self { tensor, memory: Memory::zeroed(kernels::packed_bytes(tensor)).unwrap() })
    }

    fn operand(&self) -> Operand {
        self.memory.operand(0, self.tensor).unwrap()
    }

    fn packed(self) -> Self {
        let packed = Self { tensor: self.tensor, memory: Memory::zeroed(self.memory.bytes()).unwrap() };
        compute(&Operation::Pack, &[self.operand()], &[packed.operand()]);
        packed
    }
}

fn compute(operation: &Operation, inputs: &[Operand], outputs: &[Operand]) {
    let kernel = kernels::build(operation, inputs, outputs).unwrap();
    let mut scratch = vec![[0u64; 8]; kernel.scratch_bytes().div_ceil(64)];
    (0..kernel.parts()).for_each(|part| kernel.run(part, bytemuck::cast_slice_mut(&mut scratch)));
}

/// Operations whose second input is a packed weight on the CPU.
fn packs(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Linear { .. }
            | Operation::ProjectedCrossEntropy { .. }
            | Operation::ProjectedCrossEntropyGrad { .. }
            | Operation::ProjectedCrossEntropyWeightGrad { .. }
    )
}

/// What the CPU's kernel computes, compared with outputs of the GPU's; the CPU has none for f16.
///
/// Inputs and outputs come with their shapes. An operation that updates a state is compared by that state.
pub fn agrees_with_cpu(
    gpu: &Gpu,
    operation: &Operation,
    inputs: &[(&[usize], &Buffer)],
    outputs: &[(&[usize], &Buffer)],
    tolerance: f64,
) -> Outcome {
    let place = |all: &[(&[usize], &Buffer)]| all.iter().map(|one| Tensor::new(gpu, one)).collect();
    let (Some(read), Some(written)): (Option<Vec<_>>, Option<Vec<_>>) = (place(inputs), place(outputs))
    else {
        return Ok(());
    };
    let mut tensors = vec![];
    for (index, (tensor, (_, buffer))) in read.into_iter().zip(inputs).enumerate() {
        tensor.operand().write(&bytes_of(tensor.tensor.dtype, buffer)).unwrap();
        tensors.push(if index == 1 && packs(operation) { tensor.packed() } else { tensor });
    }
    let reads: Vec<_> = tensors.iter().map(Tensor::operand).collect();
    let mut writes: Vec<_> = written.iter().map(Tensor::operand).collect();
    if operation.updates_state() {
        writes[0] = reads[0];
    }
    compute(operation, &reads, &writes);
    for (index, (operand, (_, buffer))) in writes.iter().zip(outputs).enumerate() {
        let expected = floats_of(operand.tensor.dtype, &operand.read());
        if let Buffer::U32(found) = buffer {
            let found: Vec<f64> = found.iter().map(|&id| f64::from(id)).collect();
            if found != expected {
                return Err(format!("output {index} is {found:?}, the CPU's {expected:?}"));
            }
            continue;
        }
        close(&format!("output {index} against the CPU's"), buffer.floats(), &expected, tolerance)?;
    }
    Ok(())
}

/// Runs every check of a file in all types of activations and both kinds of reductions.
fn run_all(file: &str) {
    if !can_compile() {
        return;
    }
    for check in CHECKS.iter().filter(|check| check.file == file) {
        for &head_dim in check.head_dims {
            let elements = [Element::F32, Element::F16, Element::Bf16];
            // Further widths of heads take other tiles, whatever the type.
            let count = if head_dim == check.head_dims[0] { elements.len() } else { 1 };
            for element in elements.into_iter().take(count) {
                let gpu = Gpu::new(element, head_dim);
                for tree_reduction in [0, 1] {
                    let constants = vec![tree_reduction];
                    (check.run)(&Gpu { constants, ..gpu.clone() })
                        .unwrap_or_else(|problem| panic!("{element:?} heads of {head_dim}: {problem}"));
                }
            }
        }
    }
}

macro_rules! tests {
    ($($name:ident: $file:literal,)*) => {
        $(
            #[test]
            fn $name() {
                run_all($file);
            }
        )*

        /// No check is left out above.
        #[test]
        fn every_check_runs() {
            let run = [$($file),*];
            assert!(CHECKS.iter().all(|check| run.contains(&check.file)));
        }
    };
}

tests! {
    normalization: "rms_norm.metal",
    rotary_embedding: "rope.metal",
    gated_units: "gated.metal",
    biases: "bias.metal",
    rows_by_number: "rows.metal",
    functions_of_elements: "elementwise.metal",
    copies_of_any_layout: "copy.metal",
    sums_and_maxima: "reduce.metal",
    elements_by_number: "indexed.metal",
    masks: "generate.metal",
    squared_norm: "sum_of_squares.metal",
    optimizer: "adamw.metal",
    attention_forward: "attention.metal",
    attention_backward: "attention_gradient.metal",
    attention_over_a_cache: "cached_attention.metal",
    mixtures_of_experts: "experts.metal",
    batches_of_products: "product.metal",
    products_with_adapters: "products.metal",
    quantized_weights: "quantized.metal",
    projected_cross_entropy: "cross_entropy.metal",
}
