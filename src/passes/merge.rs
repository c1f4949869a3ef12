//! Makes one matrix product of several thin ones that read the same matrix.
//!
//! The adapters of q, k and v share their input x, as those of gate and up do: x is read once for all of their A, and
//! once for all of their gradients.

use super::rewriter::{Rewriter, rewrite};
use crate::error::{Error, Result};
use crate::graph::{FrozenGraph, LazyTensor, Operation};

/// The widest product that is thin: beyond, reading x again costs less than joining the thin sides.
const MAX_RANK: usize = 64;

/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn merge(graph: &FrozenGraph) -> Result<FrozenGraph> {
    let groups = groups(graph);
    rewrite(graph, &|rewriter, index, _| rule(&groups, rewriter, index))
}

fn rule(
    groups: &[Option<Group>],
    rewriter: &mut Rewriter<'_>,
    index: usize,
) -> Result<Option<Vec<LazyTensor>>> {
    let Some(group) = &groups[index] else { return Ok(None) };
    for member in &group.members {
        rewriter.rebuild(member.thin, &|rewriter, index, _| rule(groups, rewriter, index))?;
    }
    Ok(Some(vec![group.part(rewriter, index)?]))
}

/// Products of one matrix, by how they use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// x a_i^T, with a_i [rank, in]: the merged product is x [a_1; a_2; ..]^T.
    Rows,
    /// u_i^T x, with u_i [n, rank]: the merged product is [u_1, u_2, ..]^T x.
    Columns,
}

#[derive(Debug, Clone)]
struct Group {
    side: Side,
    shared: usize,
    widen: bool,
    /// The products, and the thin matrix and the rank of each.
    members: Vec<Member>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    product: usize,
    thin: usize,
    rank: usize,
}

/// For every node, the group that it is a product of.
fn groups(graph: &FrozenGraph) -> Vec<Option<Group>> {
    let mut open: Vec<Group> = Vec::new();
    for index in 0..graph.nodes().len() {
        let Some(Group { side, shared, widen, members }) = thin_product(graph, index) else { continue };
        let member = members[0];
        let group = open.iter_mut().find(|group| {
            let independent = || {
                let needed = graph.ancestors(member.thin);
                group.members.iter().all(|other| !needed[other.product])
            };
            group.side == side && group.shared == shared && group.widen == widen && independent()
        });
        match group {
            Some(group) => group.members.push(member),
            None => open.push(Group { side, shared, widen, members }),
        }
    }
    let mut groups = vec![None; graph.nodes().len()];
    for group in open.into_iter().filter(|group| group.members.len() > 1) {
        for member in group.members.clone() {
            groups[member.product] = Some(group.clone());
        }
    }
    groups
}

/// The node as a group of one, if it is a thin product.
fn thin_product(graph: &FrozenGraph, index: usize) -> Option<Group> {
    let node = &graph.nodes()[index];
    let Operation::MatMul { transpose_left, transpose_right, widen } = node.operation else { return None };
    let [left, right] = *node.inputs else { return None };
    let (side, shared, thin) = match (transpose_left, transpose_right) {
        (false, true) => (Side::Rows, left, right),
        (true, false) => (Side::Columns, right, left),
        _ => return None,
    };
    let shape = graph.nodes()[thin].tensor_type().shape;
    let [rows, columns] = *shape.dims() else { return None };
    let (rank, long) = if side == Side::Rows { (rows, columns) } else { (columns, rows) };
    let members = vec![Member { product: index, thin, rank }];
    (rank <= MAX_RANK && rank < long).then_some(Group { side, shared, widen, members })
}

impl Group {
    /// The merged product's part that stands for `product`.
    fn part(&self, rewriter: &Rewriter<'_>, product: usize) -> Result<LazyTensor> {
        let thin = self.members.iter().map(|member| rewriter.get(member.thin)).collect::<Result<Vec<_>>>()?;
        let (first, others) =
            thin.split_first().ok_or_else(|| Error::internal("a merged product is empty"))?;
        let others: Vec<&LazyTensor> = others.iter().collect();
        let shared = rewriter.get(self.shared)?;
        let before = self.members.iter().take_while(|member| member.product != product);
        let start = before.map(|member| member.rank).sum();
        let rank = self.members.iter().find(|m| m.product == product).map_or(0, |member| member.rank);
        Ok(match self.side {
            Side::Rows => {
                let product =
                    Operation::MatMul { transpose_left: false, transpose_right: true, widen: self.widen };
                shared.then(product, &[&first.concat(0, &others)]).slice(1, start, rank)
            }
            Side::Columns => {
                let product =
                    Operation::MatMul { transpose_left: true, transpose_right: false, widen: self.widen };
                first.concat(1, &others).then(product, &[&shared]).slice(0, start, rank)
            }
        })
    }
}
