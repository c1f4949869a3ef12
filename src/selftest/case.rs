//! One operation of a training step, its operands, and what its results must equal.

use std::sync::Arc;

use crate::error::Result;
use crate::executor::HostTensor;
use crate::graph::{ComputationGraph, DType, LazyTensor, Operation, Shape};

/// Builds a value from a case's leaves.
pub type Forward = Box<dyn Fn(&[LazyTensor]) -> LazyTensor>;
/// Builds values from a case's leaves, in their order.
pub type Build = Box<dyn Fn(&[LazyTensor]) -> Vec<LazyTensor>>;

/// Element type of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// What the case runs in: f32 or bf16.
    Tested,
    /// f32 in any case: angles, losses, masters of trained weights.
    Single,
    /// u32
    Ids,
}

/// How a device holds a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Between operations.
    Activation,
    /// For good, laid out as the device likes.
    Weight,
    /// Given anew to each step.
    Given,
    /// Between steps: the operation writes it.
    State,
}

pub enum Fill {
    /// Uniform between the two.
    Uniform(f64, f64),
    Ids(Vec<u32>),
    /// Computed from the leaves before it by f32 kernels of the CPU: what the forward pass leaves to the backward pass.
    Made(Build),
}

pub struct Leaf {
    pub dims: Vec<usize>,
    pub element: Element,
    pub role: Role,
    pub fill: Fill,
}

impl Leaf {
    fn uniform(dims: &[usize], element: Element, role: Role, [low, high]: [f64; 2]) -> Self {
        Self { dims: dims.to_vec(), element, role, fill: Fill::Uniform(low, high) }
    }

    pub fn activation(dims: &[usize]) -> Self {
        Self::uniform(dims, Element::Tested, Role::Activation, [-1.0, 1.0])
    }

    /// Small enough for products over many features not to saturate a softmax.
    pub fn weight(dims: &[usize]) -> Self {
        Self::uniform(dims, Element::Tested, Role::Weight, [-0.2, 0.2])
    }

    pub fn single(dims: &[usize]) -> Self {
        Self::uniform(dims, Element::Single, Role::Activation, [-1.0, 1.0])
    }

    pub fn number(value: f64) -> Self {
        Self::uniform(&[1], Element::Single, Role::Given, [value, value])
    }

    pub fn state(dims: &[usize], range: [f64; 2]) -> Self {
        Self::uniform(dims, Element::Single, Role::State, range)
    }

    pub fn ids(ids: Vec<u32>) -> Self {
        Self { dims: vec![ids.len()], element: Element::Ids, role: Role::Given, fill: Fill::Ids(ids) }
    }

    pub fn made(
        dims: &[usize],
        element: Element,
        build: impl Fn(&[LazyTensor]) -> LazyTensor + 'static,
    ) -> Self {
        let fill = Fill::Made(Box::new(move |leaves| vec![build(leaves)]));
        Self { dims: dims.to_vec(), element, role: Role::Activation, fill }
    }

    /// The leaf's element type where the case runs in `tested`.
    pub fn dtype(&self, tested: DType) -> DType {
        match self.element {
            Element::Tested => tested,
            Element::Single if tested == DType::F64 => DType::F64,
            Element::Single => DType::F32,
            Element::Ids => DType::U32,
        }
    }

    /// Its numbers, the same for the same slot and shape; `None` where they are to be computed.
    ///
    /// # Errors
    /// A shape error if the ids do not fit their shape.
    pub fn values(&self, slot: usize, tested: DType) -> Result<Option<HostTensor>> {
        let count = Shape::new(&self.dims)?.elements();
        match &self.fill {
            Fill::Uniform(low, high) => {
                let values = uniform(count, slot as u64, *low, *high);
                Ok(Some(HostTensor::f32(&self.dims, values)?.to_dtype(self.dtype(tested))))
            }
            Fill::Ids(ids) => Ok(Some(HostTensor::u32(&self.dims, ids.clone())?)),
            Fill::Made(_) => Ok(None),
        }
    }

    /// Names tell shapes and types apart, so that cases share what is equal.
    pub fn name(&self, slot: usize, dtype: DType) -> String {
        match &self.fill {
            Fill::Uniform(low, high) => format!("{slot} {:?} {dtype} {low} {high}", self.dims),
            Fill::Ids(_) | Fill::Made(_) => format!("{slot} {:?} {dtype}", self.dims),
        }
    }
}

/// splitmix64
fn uniform(count: usize, seed: u64, low: f64, high: f64) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x2545_f491_4f6c_dd1d);
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64;
        (low + (high - low) * unit) as f32
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// What the first results of a kernel are by definition; operations are written out in plain ones before they run.
pub enum Formula {
    /// The kernel's own operation.
    Kernel,
    /// These values.
    Values(Build),
    /// The derivatives of `forward` with respect to the leaves `wrt`, where the leaf `dy` is the gradient of its value.
    Derivatives { forward: Forward, dy: usize, wrt: Vec<usize> },
}

pub struct Case {
    pub name: String,
    pub leaves: Vec<Leaf>,
    /// The operation as a training step calls it, and all its results.
    pub kernel: Build,
    pub formula: Formula,
    /// Types that a training step runs it in.
    pub dtypes: &'static [DType],
    /// Of results in f32, relative to the largest one.
    pub tolerance: f64,
}

pub const BOTH: &[DType] = &[DType::F32, DType::Bf16];

impl Case {
    pub fn new(
        name: impl Into<String>,
        leaves: Vec<Leaf>,
        kernel: impl Fn(&[LazyTensor]) -> Vec<LazyTensor> + 'static,
    ) -> Self {
        let (name, kernel) = (name.into(), Box::new(kernel));
        Self { name, leaves, kernel, formula: Formula::Kernel, dtypes: BOTH, tolerance: 1e-5 }
    }

    /// An operation with one result, of all leaves.
    pub fn of(name: impl Into<String>, operation: Operation, leaves: Vec<Leaf>) -> Self {
        Self::new(name, leaves, move |leaves| apply(&operation, leaves).into_iter().collect())
    }

    pub fn derivative(
        mut self,
        forward: impl Fn(&[LazyTensor]) -> LazyTensor + 'static,
        dy: usize,
        wrt: &[usize],
    ) -> Self {
        self.formula = Formula::Derivatives { forward: Box::new(forward), dy, wrt: wrt.to_vec() };
        self
    }

    pub fn only(self, dtypes: &'static [DType]) -> Self {
        Self { dtypes, ..self }
    }

    /// Handles on the leaves in `graph`. Where not `resident`, everything but states is given to each step.
    pub fn handles(&self, graph: &Arc<ComputationGraph>, tested: DType, resident: bool) -> Vec<LazyTensor> {
        let handle = |(slot, leaf): (usize, &Leaf)| {
            let dtype = leaf.dtype(tested);
            graph.leaf(self.operation(slot, tested, resident), &leaf.dims, dtype)
        };
        self.leaves.iter().enumerate().map(handle).collect()
    }

    /// What holds the leaf in a graph.
    pub fn operation(&self, slot: usize, tested: DType, resident: bool) -> Operation {
        let leaf = &self.leaves[slot];
        let name = leaf.name(slot, leaf.dtype(tested)).into();
        match leaf.role {
            Role::State => Operation::State(name),
            Role::Activation if resident => Operation::State(name),
            Role::Weight if resident => Operation::Frozen(name),
            Role::Activation | Role::Weight | Role::Given => Operation::Input(name),
        }
    }

    /// What a result in `tested` may differ by: rounding to bf16 comes twice where operands are rounded on the way, too.
    pub fn tolerance(&self, tested: DType) -> f64 {
        if tested == DType::Bf16 { self.tolerance + 1.0 / 64.0 } else { self.tolerance }
    }
}

/// An operation on handles; all its outputs are told apart by the caller.
pub fn apply(operation: &Operation, leaves: &[LazyTensor]) -> Option<LazyTensor> {
    let (first, others) = leaves.split_first()?;
    Some(first.then(operation.clone(), &others.iter().collect::<Vec<_>>()))
}
