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
    /// Rows that get a bias.
    BiasSpec as "BiasSpec" { rows: u32, width: u32, }
    /// y [rows, columns] = scale * left right^T: one product of a dispatch; without rows it is left out.
    ProductSpec as "ProductSpec" {
        partials: u64,
        rows: u32,
        columns: u32,
        depth: u32,
        left_across: u32,
        right_across: u32,
        add: u32,
        splits: u32,
        scale: f32,
    }
    /// A chunk of tokens and a block of the vocabulary; `soft_cap` is 0 for none.
    CrossEntropyNumbers as "CrossEntropySpec" {
        tokens: u32,
        width: u32,
        vocab: u32,
        words: u32,
        first_word: u32,
        gradient: u32,
        soft_cap: f32,
    }
    /// Attention of rows of `seq` positions; `soft_cap` is 0 for none.
    AttentionNumbers as "AttentionSpec" {
        seq: u32,
        heads: u32,
        kv_heads: u32,
        window: u32,
        scale: f32,
        soft_cap: f32,
    }
    /// x [rows, inputs] times a quantized weight [outputs, inputs], or the way back where `transpose`.
    QuantizedSpec as "QuantizedSpec" {
        rows: u32,
        outputs: u32,
        inputs: u32,
        block_values: u32,
        block_bytes: u32,
        transpose: u32,
    }
    /// Elements that a function is applied to; its number is `lower`'s.
    FunctionSpec as "FunctionSpec" { elements: u32, function: u32, }
    /// x * multiply + add for each of some elements.
    AffineSpec as "AffineSpec" { elements: u32, multiply: f32, add: f32, }
    /// Extents of y, and how far x moves for a step along each axis.
    StridedSpec as "StridedSpec" {
        offset: u64,
        extent_0: u32,
        extent_1: u32,
        extent_2: u32,
        extent_3: u32,
        extent_4: u32,
        stride_0: u32,
        stride_1: u32,
        stride_2: u32,
        stride_3: u32,
        stride_4: u32,
    }
    /// Up to four tensors side by side, from a column on.
    ConcatSpec as "ConcatSpec" {
        rows: u32,
        columns: u32,
        start: u32,
        width_0: u32,
        width_1: u32,
        width_2: u32,
        width_3: u32,
    }
    /// x [outer, axis, inner] to reduce along its second axis.
    ReduceSpec as "ReduceSpec" { outer: u32, axis: u32, inner: u32, maximum: u32, }
    /// One id for each row.
    PickSpec as "PickSpec" { rows: u32, width: u32, }
    /// Elements that are dropped, or else multiplied by `keep`.
    DropoutSpec as "DropoutSpec" { threshold: u64, elements: u32, stream: u32, keep: f32, unused: u32, }
    /// Queries, and the keys of each.
    MaskSpec as "MaskSpec" { rows: u32, keys: u32, window: u32, }
    /// y [rows, columns] = left right^T, for each of a batch.
    MatrixSpec as "MatrixSpec" {
        rows: u32,
        columns: u32,
        depth: u32,
        left_across: u32,
        right_across: u32,
    }
    /// Tokens, and the experts that each of them goes to.
    RouteNumbers as "RouteSpec" { tokens: u32, experts: u32, chosen: u32, of_experts: u32, }
    /// x [rows, inputs] times the matrix of each row's expert, which has `outputs`.
    ExpertNumbers as "ExpertSpec" { rows: u32, inputs: u32, outputs: u32, experts: u32, transpose: u32, }
    /// Attention of `seq` queries over cached keys; `soft_cap` is 0 for none.
    CachedNumbers as "CachedSpec" {
        seq: u32,
        heads: u32,
        kv_heads: u32,
        capacity: u32,
        window: u32,
        scale: f32,
        soft_cap: f32,
    }
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
