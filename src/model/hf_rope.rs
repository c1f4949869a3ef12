//! The rotary embeddings of a `config.json`, in its present and its older forms.

use serde_json::{Map, Value};

use super::config::{RopeConfig, RopeScaling, YarnScaling};
use super::hf_fields::{Fields, required};
use crate::error::{Error, Result};

/// What an object of rope parameters may hold; other fields might change the angles.
const KNOWN: &str = "rope_type type rope_theta partial_rotary_factor factor low_freq_factor high_freq_factor \
    original_max_position_embeddings attention_factor beta_fast beta_slow mscale mscale_all_dim truncate finetuned";

/// The rotary embedding of all layers, or of those that see the whole context.
pub(super) fn main(fields: &Fields) -> Result<RopeConfig> {
    of(fields, "full_attention", "rope_theta")
}

/// The rotary embedding of layers with a sliding window, where it is another one.
pub(super) fn local(fields: &Fields) -> Result<RopeConfig> {
    if by_kind(fields, "sliding_attention")?.is_some() {
        return of(fields, "sliding_attention", "rope_local_base_freq");
    }
    let theta = required("rope_local_base_freq", fields.number("rope_local_base_freq")?)?;
    let rope = RopeConfig { theta, scaling: RopeScaling::None };
    rope.check()?;
    Ok(rope)
}

/// The share of each head that is rotated.
pub(super) fn partial_rotary_factor(fields: &Fields) -> Result<f64> {
    let within = match fields.object("rope_parameters")? {
        Some(parameters) => Fields(parameters).number("partial_rotary_factor")?,
        None => None,
    };
    Ok(within.or(fields.number("partial_rotary_factor")?).unwrap_or(1.0))
}

/// `rope_parameters` of one kind of layers, where they are given by kind.
fn by_kind<'a>(fields: &Fields<'a>, kind: &str) -> Result<Option<&'a Map<String, Value>>> {
    match fields.object("rope_parameters")? {
        Some(parameters) => Fields(parameters).object(kind),
        None => Ok(None),
    }
}

fn of(fields: &Fields, kind: &str, theta: &str) -> Result<RopeConfig> {
    let parameters = match by_kind(fields, kind)? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_parameters")?,
    };
    let scaling = parameters.or(fields.object("rope_scaling")?);
    let within = parameters.map_or(Ok(None), |parameters| Fields(parameters).number("rope_theta"))?;
    let theta = match within {
        Some(theta) => theta,
        None => required(theta, fields.number(theta)?).map_err(|error| {
            error.hint(format!("add the {theta} that the model was trained with to config.json"))
        })?,
    };
    let context = fields.size("max_position_embeddings")?;
    let scaling = scaling.map_or(Ok(RopeScaling::None), |map| scaling_of(&Fields(map), context))?;
    Ok(RopeConfig { theta, scaling })
}

fn scaling_of(fields: &Fields, context: Option<usize>) -> Result<RopeScaling> {
    let kind = fields.text("rope_type")?.or(fields.text("type")?).unwrap_or("default");
    let number = |name: &str| required(name, fields.number(name)?);
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position_embeddings: required(
                "original_max_position_embeddings",
                fields.size("original_max_position_embeddings")?,
            )?,
        },
        "yarn" => RopeScaling::Yarn(yarn(fields, context)?),
        other => {
            return Err(Error::data(format!("the rope_type {other} is not supported"))
                .hint("supported: default, linear, llama3, yarn"));
        }
    };
    let unknown = |name: &&String| {
        fields.get(name).is_some() && !KNOWN.split_whitespace().any(|known| known == name.as_str())
    };
    match fields.0.keys().find(unknown) {
        None => Ok(scaling),
        Some(name) => Err(Error::data(format!("the rope parameter {name} is not supported"))
            .hint("if it does not change what the model computes, remove it from config.json")),
    }
}

fn yarn(fields: &Fields, context: Option<usize>) -> Result<YarnScaling> {
    let original = fields.size("original_max_position_embeddings")?.or(context);
    let original = required("original_max_position_embeddings", original)?;
    let factor = required("factor", fields.number("factor")?)?;
    let positive = |value: Option<f64>| value.filter(|&value| value != 0.0);
    let attention_factor = fields.number("attention_factor")?;
    let (mscale, all) = (fields.number("mscale")?, fields.number("mscale_all_dim")?);
    Ok(YarnScaling {
        factor,
        original_max_position_embeddings: original,
        beta_fast: positive(fields.number("beta_fast")?).unwrap_or(32.0),
        beta_slow: positive(fields.number("beta_slow")?).unwrap_or(1.0),
        attention_factor: attention_factor
            .unwrap_or_else(|| YarnScaling::inferred_factor(factor, mscale, all)),
        truncate: fields.flag("truncate")?.unwrap_or(true),
    })
}
