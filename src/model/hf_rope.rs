//! The rotary embeddings of a `config.json`, in its present and its older forms.

use serde_json::{Map, Value};

use super::config::{LongRope, RopeConfig, RopeScaling, YarnScaling};
use super::hf_fields::{Fields, required};
use crate::error::{Error, Result};

const ORIGINAL: &str = "original_max_position_embeddings";

/// What an object of rope parameters may hold; other fields might change the angles.
const KNOWN: &str = "rope_type type rope_theta partial_rotary_factor factor low_freq_factor high_freq_factor \
    original_max_position_embeddings attention_factor beta_fast beta_slow mscale mscale_all_dim truncate finetuned \
    short_factor long_factor";

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
    // Phi 3 has it beside the scaling, which goes before one within.
    let original = fields.size(ORIGINAL)?;
    let scaling = scaling.map_or(Ok(RopeScaling::None), |map| scaling_of(&Fields(map), context, original))?;
    Ok(RopeConfig { theta, scaling })
}

fn scaling_of(fields: &Fields, context: Option<usize>, original: Option<usize>) -> Result<RopeScaling> {
    let kind = fields.text("rope_type")?.or(fields.text("type")?).unwrap_or("default");
    // Early files of Phi 3 call it su or yarn.
    let kind = if kind == "su" || fields.get("long_factor").is_some() { "longrope" } else { kind };
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
        "longrope" => RopeScaling::LongRope(longrope(fields, context, original)?),
        other => {
            return Err(Error::data(format!("the rope_type {other} is not supported"))
                .hint("supported: default, linear, llama3, yarn, longrope"));
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

fn longrope(fields: &Fields, context: Option<usize>, original: Option<usize>) -> Result<LongRope> {
    let original = required(ORIGINAL, original.or(fields.size(ORIGINAL)?))?;
    let factors = |name: &str| required(name, fields.numbers(name)?);
    let stretch = match fields.number("factor")? {
        Some(factor) => factor,
        None => required("max_position_embeddings", context)? as f64 / original.max(1) as f64,
    };
    // Ding et al. 2024, section 3.3, as transformers has it.
    let inferred = if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / (original as f64).ln()).sqrt() };
    Ok(LongRope {
        short_factor: factors("short_factor")?,
        long_factor: factors("long_factor")?,
        original_max_position_embeddings: original,
        attention_factor: fields.number("attention_factor")?.unwrap_or(inferred),
    })
}

/// longrope must have a factor for each rotated pair of features.
pub(super) fn check_factors(rope: &RopeConfig, rotated: usize) -> Result<()> {
    let RopeScaling::LongRope(long) = &rope.scaling else { return Ok(()) };
    for (name, factors) in [("short_factor", &long.short_factor), ("long_factor", &long.long_factor)] {
        if factors.len() != rotated / 2 {
            return Err(Error::data(format!(
                "{name} has {} numbers, but {} pairs of features are rotated",
                factors.len(),
                rotated / 2
            )));
        }
    }
    Ok(())
}
