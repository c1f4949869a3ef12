//! Kernels of fused operations.

use super::{Binding, Interface, Kind, PRODUCTS, kernel, read, spec, structs, write};
use crate::kernels::metal::spec::{
    AdamWNumbers, AttentionNumbers, BiasSpec, CachedNumbers, Chunk, CrossEntropyNumbers, ElementwiseSpec,
    ExpertNumbers, QuantizedSpec, RmsNormSpec, RopeSpec, RouteNumbers, RowsSpec, SumSpec,
};

use Kind::{Activation, F32, U8, U32};

const GATED: &[Binding] =
    &[read("gate", Activation), read("up", Activation), write("y", Activation), spec::<ElementwiseSpec>()];

const GATED_GRADIENT: &[Binding] = &[
    read("gate", Activation),
    read("up", Activation),
    read("dy", Activation),
    write("dgate", Activation),
    write("dup", Activation),
    spec::<ElementwiseSpec>(),
];

pub(super) const FUSED: &[Interface] = &[
    kernel(
        "rms_norm",
        &[read("x", Activation), read("weight", Activation), write("y", Activation), spec::<RmsNormSpec>()],
    ),
    kernel(
        "rms_norm_gradient",
        &[
            read("x", Activation),
            read("weight", Activation),
            read("dy", Activation),
            write("dx", Activation),
            write("inverse", F32),
            spec::<RmsNormSpec>(),
        ],
    ),
    kernel(
        "rms_norm_weight_gradient",
        &[
            read("x", Activation),
            read("dy", Activation),
            read("inverse", F32),
            write("dweight", Activation),
            spec::<RmsNormSpec>(),
        ],
    ),
    kernel(
        "rope",
        &[
            read("x", Activation),
            read("cosines", F32),
            read("sines", F32),
            write("y", Activation),
            spec::<RopeSpec>(),
        ],
    ),
    kernel("swiglu", GATED),
    kernel("swiglu_gradient", GATED_GRADIENT),
    kernel("geglu", GATED),
    kernel("geglu_gradient", GATED_GRADIENT),
    kernel(
        "add_bias",
        &[read("x", Activation), read("bias", Activation), write("y", Activation), spec::<BiasSpec>()],
    ),
    kernel(
        "gather_rows",
        &[read("table", Activation), read("ids", U32), write("y", Activation), spec::<RowsSpec>()],
    ),
    kernel(
        "sum_of_squares",
        &[read("gradients", Activation), read("chunks", structs::<Chunk>()), write("partials", F32)],
    ),
    kernel("sum_partials", &[read("partials", F32), write("total", F32), spec::<SumSpec>()]),
    kernel(
        "adamw",
        &[
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
    ),
    kernel(
        "products",
        &[
            read("left_0", Activation),
            read("left_1", Activation),
            read("left_2", Activation),
            read("right_0", Activation),
            read("right_1", Activation),
            read("right_2", Activation),
            write("y_0", Activation),
            write("y_1", Activation),
            write("y_2", Activation),
            PRODUCTS,
        ],
    ),
    kernel(
        "product_partials",
        &[
            read("left_0", Activation),
            read("left_1", Activation),
            read("left_2", Activation),
            read("right_0", Activation),
            read("right_1", Activation),
            read("right_2", Activation),
            write("partials", F32),
            PRODUCTS,
        ],
    ),
    kernel(
        "add_partials",
        &[
            read("partials", F32),
            write("y_0", Activation),
            write("y_1", Activation),
            write("y_2", Activation),
            PRODUCTS,
        ],
    ),
    kernel(
        "quantized_product",
        &[read("x", Activation), read("weight", U8), write("y", Activation), spec::<QuantizedSpec>()],
    ),
    kernel(
        "project_logits",
        &[
            read("hidden", Activation),
            read("weight", Activation),
            read("targets", U32),
            write("logits", F32),
            spec::<CrossEntropyNumbers>(),
        ],
    ),
    kernel(
        "cross_entropy",
        &[
            write("logits", F32),
            read("targets", U32),
            read("dloss", F32),
            write("loss", F32),
            write("log_sum_exp", F32),
            spec::<CrossEntropyNumbers>(),
        ],
    ),
    kernel(
        "cross_entropy_hidden_gradient",
        &[
            read("gradients", F32),
            read("weight", Activation),
            read("targets", U32),
            write("dhidden", Activation),
            spec::<CrossEntropyNumbers>(),
        ],
    ),
    kernel(
        "cross_entropy_word_gradients",
        &[
            write("logits", F32),
            read("targets", U32),
            read("dloss", F32),
            read("log_sum_exp", F32),
            spec::<CrossEntropyNumbers>(),
        ],
    ),
    kernel(
        "cross_entropy_weight_gradient",
        &[
            read("gradients", F32),
            read("hidden", Activation),
            read("targets", U32),
            write("dweight", Activation),
            spec::<CrossEntropyNumbers>(),
        ],
    ),
    kernel(
        "attention",
        &[
            read("q", Activation),
            read("k", Activation),
            read("v", Activation),
            read("segments", U32),
            write("out", Activation),
            write("log_sum_exp", F32),
            spec::<AttentionNumbers>(),
        ],
    ),
    kernel(
        "cached_attention",
        &[
            read("q", Activation),
            read("keys", Activation),
            read("values", Activation),
            read("start", U32),
            write("out", Activation),
            spec::<CachedNumbers>(),
        ],
    ),
    kernel(
        "attention_delta",
        &[read("dout", Activation), read("out", Activation), write("delta", F32), spec::<ElementwiseSpec>()],
    ),
    kernel(
        "attention_query_gradient",
        &[
            read("q", Activation),
            read("k", Activation),
            read("v", Activation),
            read("segments", U32),
            read("log_sum_exp", F32),
            read("delta", F32),
            read("dout", Activation),
            write("dq", Activation),
            spec::<AttentionNumbers>(),
        ],
    ),
    kernel(
        "attention_key_gradient",
        &[
            read("q", Activation),
            read("k", Activation),
            read("v", Activation),
            read("segments", U32),
            read("log_sum_exp", F32),
            read("delta", F32),
            read("dout", Activation),
            write("dk", Activation),
            write("dv", Activation),
            spec::<AttentionNumbers>(),
        ],
    ),
    kernel("choose_experts", &[read("scores", Activation), write("choices", U32), spec::<RouteNumbers>()]),
    kernel("sort_pairs", &[read("choices", U32), write("y", U32), spec::<RouteNumbers>()]),
    kernel(
        "expert_linear",
        &[
            read("x", Activation),
            read("weight", Activation),
            read("ids", U32),
            write("y", Activation),
            spec::<ExpertNumbers>(),
        ],
    ),
    kernel(
        "expert_weight_gradient",
        &[
            read("dy", Activation),
            read("x", Activation),
            read("ids", U32),
            write("dweight", Activation),
            spec::<ExpertNumbers>(),
        ],
    ),
];
