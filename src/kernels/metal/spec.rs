//! Parameters of the kernels, with the layout that their source declares.

use bytemuck::{Pod, Zeroable};

/// A struct that both sides declare.
pub trait Spec: Pod {
    const NAME: &'static str;
    /// Names and types of the fields, as Metal spells them.
    const FIELDS: &'static [(&'static str, &'static str)];
}

macro_rules! metal_type {
    (u32) => {
        "uint"
    };
    (u64) => {
        "ulong"
    };
    (f32) => {
        "float"
    };
}

macro_rules! specs {
    ($($(#[$doc:meta])* $name:ident as $metal:literal { $($field:ident: $kind:ident,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
            #[repr(C)]
            pub struct $name {
                $(pub $field: $kind,)*
            }

            impl Spec for $name {
                const NAME: &'static str = $metal;
                const FIELDS: &'static [(&'static str, &'static str)] =
                    &[$((stringify!($field), metal_type!($kind)),)*];
            }
        )*
    };
}

specs! {
    /// Rows to normalize.
    RmsNormSpec as "RmsNormSpec" { rows: u32, width: u32, epsilon: f32, }
    /// Heads to rotate; `sign` is -1 to rotate back.
    RopeSpec as "RopeSpec" { rows: u32, heads: u32, head_dim: u32, sign: f32, }
    /// Elements of an elementwise kernel.
    ElementwiseSpec as "ElementwiseSpec" { elements: u64, }
    /// Ids, and the table that they index.
    RowsSpec as "RowsSpec" { count: u32, width: u32, rows: u32, }
    /// A run of elements of one trained tensor: offsets in elements within the gradients and within the states.
    Chunk as "Chunk" { gradient: u64, state: u64, elements: u32, unused: u32, }
    /// Partial sums there are.
    SumSpec as "SumSpec" { partials: u32, }
    /// What AdamW computes with, rounded from f64.
    AdamWNumbers as "AdamWSpec" {
        log_beta1: f32,
        log_beta2: f32,
        complement1: f32,
        complement2: f32,
        beta2: f32,
        epsilon: f32,
        weight_decay: f32,
    }
}
