//! One table of what every kernel is bound to: the position of a binding is its buffer index.

use super::spec::{AdamWNumbers, Chunk, ElementwiseSpec, RmsNormSpec, RopeSpec, RowsSpec, Spec, SumSpec};

/// What a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Elements of the type that the library is compiled for.
    Activation,
    F32,
    U32,
    /// Structs of this name, size in bytes, and these fields.
    Spec(&'static str, usize, &'static [(&'static str, &'static str)]),
}

/// How a kernel uses a binding. Whatever may be written has to be bound as an output: candle's hazard tracking knows no
/// more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// One struct in constant memory.
    Constant,
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
pub const FUNCTION_CONSTANTS: &[(&str, &str)] = &[("tree_reduction", "bool")];

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
    Binding { name: "spec", access: Access::Constant, kind: structs::<S>() }
}

use Kind::{Activation, F32, U32};

pub const INTERFACES: &[Interface] = &[
    Interface {
        kernel: "rms_norm",
        bindings: &[
            read("x", Activation),
            read("weight", Activation),
            write("y", Activation),
            spec::<RmsNormSpec>(),
        ],
    },
    Interface {
        kernel: "rms_norm_gradient",
        bindings: &[
            read("x", Activation),
            read("weight", Activation),
            read("dy", Activation),
            write("dx", Activation),
            write("inverse", F32),
            spec::<RmsNormSpec>(),
        ],
    },
    Interface {
        kernel: "rms_norm_weight_gradient",
        bindings: &[
            read("x", Activation),
            read("dy", Activation),
            read("inverse", F32),
            write("dweight", Activation),
            spec::<RmsNormSpec>(),
        ],
    },
    Interface {
        kernel: "rope",
        bindings: &[
            read("x", Activation),
            read("cosines", F32),
            read("sines", F32),
            write("y", Activation),
            spec::<RopeSpec>(),
        ],
    },
    Interface {
        kernel: "swiglu",
        bindings: &[
            read("gate", Activation),
            read("up", Activation),
            write("y", Activation),
            spec::<ElementwiseSpec>(),
        ],
    },
    Interface {
        kernel: "swiglu_gradient",
        bindings: &[
            read("gate", Activation),
            read("up", Activation),
            read("dy", Activation),
            write("dgate", Activation),
            write("dup", Activation),
            spec::<ElementwiseSpec>(),
        ],
    },
    Interface {
        kernel: "gather_rows",
        bindings: &[read("table", Activation), read("ids", U32), write("y", Activation), spec::<RowsSpec>()],
    },
    Interface {
        kernel: "sum_of_squares",
        bindings: &[
            read("gradients", Activation),
            read("chunks", structs::<Chunk>()),
            write("partials", F32),
        ],
    },
    Interface {
        kernel: "sum_partials",
        bindings: &[read("partials", F32), write("total", F32), spec::<SumSpec>()],
    },
    Interface {
        kernel: "adamw",
        bindings: &[
            read("gradients", Activation),
            read("chunks", structs::<Chunk>()),
            write("parameters", F32),
            write("first_moments", F32),
            write("second_moments", F32),
            read("learning_rate", F32),
            read("number", F32),
            read("factor", F32),
            spec::<AdamWNumbers>(),
        ],
    },
];
