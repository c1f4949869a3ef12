//! The Metal kernels' side of the host: their source, what each one is bound to, and how it is launched.
//!
//! The `.metal` files stand beside the CPU kernels whose formulas they share. They are compiled for one type of
//! activations and one width of heads, when a device first needs them. Nothing here needs Metal: `tests/metal` compiles
//! the same files as C++ and runs them, launched by the same code.

mod format;
mod interface;
pub mod launch;
pub mod lower;
#[cfg(feature = "metal")]
pub mod shared;
mod spec;

pub use format::WeightFormat;
pub use interface::{Access, Binding, FUNCTION_CONSTANTS, INTERFACES, Interface, Kind};
pub use spec::{
    AdamWNumbers, AffineSpec, AttentionNumbers, BiasSpec, CachedNumbers, Chunk, ConcatSpec,
    CrossEntropyNumbers, DropoutSpec, ElementwiseSpec, ExpertNumbers, FunctionSpec, MaskSpec, MatrixSpec,
    PickSpec, ProductSpec, QuantizedSpec, ReduceSpec, RmsNormSpec, RopeSpec, RouteNumbers, RowsSpec, Spec,
    StridedSpec, SumSpec,
};

use std::fmt::Write as _;

/// Names and texts of the source, in the order in which they are compiled.
pub const SOURCES: &[(&str, &str)] = &[
    ("prelude.metal", include_str!("prelude.metal")),
    ("rms_norm.metal", include_str!("../rms_norm.metal")),
    ("rope.metal", include_str!("../rope.metal")),
    ("gated.metal", include_str!("../gated.metal")),
    ("bias.metal", include_str!("../bias.metal")),
    ("rows.metal", include_str!("../rows.metal")),
    ("elementwise.metal", include_str!("../plain/elementwise.metal")),
    ("copy.metal", include_str!("../plain/copy.metal")),
    ("reduce.metal", include_str!("../plain/reduce.metal")),
    ("indexed.metal", include_str!("../plain/indexed.metal")),
    ("sum_of_squares.metal", include_str!("../sum_of_squares.metal")),
    ("adamw.metal", include_str!("../adamw.metal")),
    ("tile.metal", include_str!("../matmul/tile.metal")),
    ("product.metal", include_str!("../matmul/product.metal")),
    ("attention.metal", include_str!("../attention/attention.metal")),
    ("cached_attention.metal", include_str!("../attention/cached_attention.metal")),
    ("attention_gradient.metal", include_str!("../attention/attention_gradient.metal")),
    ("generate.metal", include_str!("../plain/generate.metal")),
    ("products.metal", include_str!("../linear/products.metal")),
    ("experts.metal", include_str!("../experts/experts.metal")),
    ("quantized.metal", include_str!("../linear/quantized.metal")),
    ("cross_entropy.metal", include_str!("../cross_entropy/cross_entropy.metal")),
];

/// The type of activations that a library is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    pub fn metal_name(self) -> &'static str {
        match self {
            Self::F32 => "float",
            Self::F16 => "half",
            Self::Bf16 => "bfloat",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// All kernels for one type of activations and one width of heads, as one text for Metal's compiler.
pub fn library_source(element: Element, head_dim: usize) -> String {
    let mut source = format!("#define ELEMENT {}\n#define HEAD_DIM {head_dim}\n", element.metal_name());
    for (name, text) in SOURCES {
        let _ = writeln!(source, "#line 1 \"{name}\"\n{text}");
    }
    source
}
