//! What families with mixtures of experts share.

use super::{DecoderSpec, Fields, required};
use crate::error::{Error, Result};
use crate::model::ExpertSpec;

/// Both spellings of the number of experts.
pub(super) const COUNT: &[&str] = &["num_experts", "num_local_experts"];
pub(super) const CHOSEN: &[&str] = &["num_experts_per_tok"];
pub(super) const WIDTH: &[&str] = &["moe_intermediate_size"];

/// Experts and widths beyond these are damage, not models.
const MOST_EXPERTS: usize = 1 << 12;
const MOST_IN_ALL_LAYERS: usize = 1 << 18;
const MOST_WIDTH: usize = 1 << 22;

/// A field that must be there, by the first of its names that is.
pub(super) fn size(fields: &Fields, names: &[&str]) -> Result<usize> {
    for name in names {
        if let Some(size) = fields.size(name)? {
            return Ok(size);
        }
    }
    required(names[0], None)
}

pub(super) fn set(spec: &mut DecoderSpec, experts: ExpertSpec) -> Result<()> {
    let sizes = [
        ("experts", experts.count, MOST_EXPERTS),
        ("features of an expert", experts.intermediate, MOST_WIDTH),
    ];
    for (what, value, most) in sizes {
        if !(1..=most).contains(&value) {
            return Err(Error::data(format!(
                "the number of {what} is {value}, which is not between 1 and {most}"
            )));
        }
    }
    if !(1..=experts.count).contains(&experts.chosen) {
        return Err(Error::data(format!("a token goes to {} of {} experts", experts.chosen, experts.count)));
    }
    let layers = experts.layers.iter().filter(|sparse| **sparse).count();
    if experts.count * layers > MOST_IN_ALL_LAYERS {
        return Err(Error::data(format!("there are {} experts in {layers} layers", experts.count)));
    }
    // A model without any layer of experts is an ordinary one.
    spec.experts = Some(experts).filter(|experts| experts.layers.contains(&true));
    Ok(())
}
