//! One table of what every kernel is bound to: the position of a binding is its buffer index.

mod fused;
mod plain;

use super::spec::{ProductSpec, Spec};
use fused::FUSED;
use plain::PLAIN;

/// What a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Elements of the type that the library is compiled for.
    Activation,
    F32,
    U32,
    U8,
    /// Structs of this name, size in bytes, and these fields.
    Spec(&'static str, usize, &'static [(&'static str, &'static str)]),
}

/// How a kernel uses a binding. Whatever may be written has to be bound as an output: candle's hazard tracking knows no
/// more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// So many structs in constant memory.
    Constant(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    pub name: &'static str,
    pub access: Access,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    pub kernel: &'static str,
    pub bindings: &'static [Binding],
}

/// Names and types of the constants that pipelines are specialized with, by index.
pub const FUNCTION_CONSTANTS: &[(&str, &str)] = &[("tree_reduction", "bool"), ("weight_format", "ushort")];

const fn read(name: &'static str, kind: Kind) -> Binding {
    Binding { name, access: Access::Read, kind }
}

const fn write(name: &'static str, kind: Kind) -> Binding {
    Binding { name, access: Access::Write, kind }
}

const fn structs<S: Spec>() -> Kind {
    Kind::Spec(S::NAME, size_of::<S>(), S::FIELDS)
}

const fn spec<S: Spec>() -> Binding {
    Binding { name: "spec", access: Access::Constant(1), kind: structs::<S>() }
}

/// What the products of one dispatch are.
const PRODUCTS: Binding =
    Binding { name: "specs", access: Access::Constant(3), kind: structs::<ProductSpec>() };

const fn kernel(kernel: &'static str, bindings: &'static [Binding]) -> Interface {
    Interface { kernel, bindings }
}

/// All kernels.
pub const INTERFACES: &[Interface] = &joined::<{ FUSED.len() + PLAIN.len() }>();

const fn joined<const N: usize>() -> [Interface; N] {
    let mut all = [FUSED[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < FUSED.len() { FUSED[at] } else { PLAIN[at - FUSED.len()] };
        at += 1;
    }
    all
}
