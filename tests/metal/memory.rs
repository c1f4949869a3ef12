//! Runs the steps that an operation is lowered to.

use lazytune::kernels::metal::launch::Launch;
use lazytune::kernels::metal::lower::{Bound, Lowering, Place, Step};
use lazytune::kernels::metal::{Access, Element, INTERFACES};

use crate::gpu::{Buffer, Gpu, decode, encode, nothing, rounded};

/// Everything that steps are bound to, as it lies in memory.
pub struct Memory {
    pub inputs: Vec<Vec<u8>>,
    pub outputs: Vec<Vec<u8>>,
    scratch: Vec<Vec<u8>>,
    tables: Vec<Vec<u8>>,
}

impl Memory {
    /// Scratch memory begins as NaN.
    pub fn new(lowering: &Lowering, inputs: Vec<Vec<u8>>, outputs: Vec<Vec<u8>>) -> Self {
        let scratch = lowering.scratch.iter().map(|&bytes| vec![0xff; bytes]).collect();
        Self { inputs, outputs, scratch, tables: lowering.tables.clone() }
    }

    /// Runs all steps; `gpu` says in which orders of threads.
    pub fn run(&mut self, gpu: &Gpu, lowering: &Lowering) -> Result<(), String> {
        for step in &lowering.steps {
            match step {
                Step::Launch(launch, bound) => {
                    let (element, head_dim) = (lowering.element, lowering.head_dim);
                    self.launch(&Gpu { element, head_dim, ..gpu.clone() }, launch, bound)?;
                }
                Step::Product { left, right, y, transpose_left, transpose_right, extents } => {
                    let transposed = [*transpose_left, *transpose_right];
                    let [left, right] = [*left, *right].map(|place| self.at(place).clone());
                    *self.at(*y) = product(lowering.element, &left, &right, transposed, *extents);
                }
            }
        }
        Ok(())
    }

    fn at(&mut self, place: Place) -> &mut Vec<u8> {
        match place {
            Place::Input(index) => &mut self.inputs[index],
            Place::Output(index) => &mut self.outputs[index],
            Place::Scratch(index) => &mut self.scratch[index],
            Place::Table(index) => &mut self.tables[index],
        }
    }

    fn launch(&mut self, gpu: &Gpu, launch: &Launch, bound: &[Bound]) -> Result<(), String> {
        let before: Vec<Vec<u8>> = bound.iter().map(|to| self.at(to.place)[to.offset..].to_vec()).collect();
        let after = gpu.run_bytes(launch, &before)?;
        let interface = INTERFACES.iter().find(|interface| interface.kernel == launch.kernel).unwrap();
        for (index, to) in bound.iter().enumerate() {
            let written = interface.bindings[index].access == Access::Write;
            assert!(written || after[index] == before[index], "{} writes what it reads", launch.kernel);
            // A buffer that is bound several times is written by one of the bindings at most.
            if written && after[index] != before[index] {
                self.at(to.place)[to.offset..].copy_from_slice(&after[index]);
            }
        }
        Ok(())
    }
}

/// What candle's product does.
pub fn product(
    element: Element,
    left: &[u8],
    right: &[u8],
    transposed: [bool; 2],
    extents: [usize; 3],
) -> Vec<u8> {
    let [rows, columns, depth] = extents;
    let values = |bytes: &[u8], n: usize| {
        let mut buffer = nothing(n);
        decode(element, &mut buffer, &bytes[..n * element.bytes()]);
        buffer
    };
    let (left, right) = (values(left, rows * depth), values(right, depth * columns));
    let (left, right) = (left.floats(), right.floats());
    let left_at = |row: usize, k: usize| if transposed[0] { k * rows + row } else { row * depth + k };
    let right_at =
        |k: usize, column: usize| if transposed[1] { column * depth + k } else { k * columns + column };
    let term = |row, column, k| f64::from(left[left_at(row, k)]) * f64::from(right[right_at(k, column)]);
    let sum = |row: usize, column: usize| -> f64 { (0..depth).map(|k| term(row, column, k)).sum() };
    let y = (0..rows * columns).map(|i| rounded(element, sum(i / columns, i % columns) as f32)).collect();
    encode(element, &Buffer::Activation(y))
}
