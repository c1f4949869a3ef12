//! Attention.

use super::{Lowering, Node, Place, extent};
use crate::error::{Error, Result};
use crate::graph::AttentionSpec;
use crate::kernels::metal::launch;

use Place::{Input, Output};

/// (q, k, v, segments) -> out, log-sum-exp
pub fn forward(spec: &AttentionSpec, to: &mut Lowering) -> Result<()> {
    extent(spec.batch * spec.seq * spec.heads)?;
    to.head_dim = spec.head_dim;
    let bound = [Input(0), Input(1), Input(2), Input(3), Output(0), Output(1)].map(Into::into);
    to.launch(launch::attention(spec), bound);
    Ok(())
}

/// (q, k, v, segments, out, log-sum-exp, dout) -> dq, dk, dv
pub fn gradient(spec: &AttentionSpec, to: &mut Lowering) -> Result<()> {
    let rows = spec.batch * spec.seq * spec.heads;
    extent(rows)?;
    to.head_dim = spec.head_dim;
    let delta = to.scratch(size_of::<f32>() * rows);
    to.launch(launch::attention_delta(spec), [Input(6), Input(4), delta].map(Into::into));
    let read = [Input(0), Input(1), Input(2), Input(3), Input(5), delta, Input(6)];
    let [q, k, v, segments, log_sum_exp, delta, dout] = read.map(Into::into);
    let bound = [q, k, v, segments, log_sum_exp, delta, dout, Output(0).into()];
    to.launch(launch::attention_query_gradient(spec), bound);
    let bound = [q, k, v, segments, log_sum_exp, delta, dout, Output(1).into(), Output(2).into()];
    to.launch(launch::attention_key_gradient(spec), bound);
    Ok(())
}

/// (q, keys, values, start) -> out
pub fn cached(node: &Node<'_>, spec: &AttentionSpec, to: &mut Lowering) -> Result<()> {
    let (q, keys) = (node.input(0)?.shape, node.input(1)?.shape);
    extent(q.elements().max(keys.elements()))?;
    if spec.batch != 1 || keys.rows() < spec.seq {
        return Err(Error::internal(format!("{spec:?} over a cache of {} positions", keys.rows())));
    }
    to.head_dim = spec.head_dim;
    let bound = [Input(0), Input(1), Input(2), Input(3), Output(0)].map(Into::into);
    to.launch(launch::cached_attention(spec, extent(keys.rows())?), bound);
    Ok(())
}
