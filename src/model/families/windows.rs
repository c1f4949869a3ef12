//! Which layers see only their last tokens.

use serde_json::Value;

use super::{DecoderSpec, Fields};
use crate::error::{Error, Result};

/// What a missing `layer_types` means: whether a layer slides, given its index.
type Rule<'a> = &'a dyn Fn(usize) -> bool;

/// Gives `window` to the layers that slide by `layer_types`, or else by the family's rule. Returns which do.
pub(super) fn set(
    fields: &Fields,
    spec: &mut DecoderSpec,
    window: Option<usize>,
    rule: Rule<'_>,
) -> Result<Vec<bool>> {
    let slides = sliding(fields, spec.layers(), rule)?;
    for (layer, _) in spec.layer_attention.iter_mut().zip(&slides).filter(|(_, slides)| **slides) {
        let missing = || Error::data("layer_types has sliding layers, but there is no sliding_window");
        layer.window = Some(window.ok_or_else(missing)?);
    }
    Ok(slides)
}

/// As [`set`] for Qwen and SmolLM3: only where `use_sliding_window` says so.
pub(super) fn set_where_used(fields: &Fields, spec: &mut DecoderSpec, rule: Rule<'_>) -> Result<()> {
    let used = fields.flag("use_sliding_window")?.unwrap_or(false);
    let window = if used { fields.size("sliding_window")? } else { None };
    set(fields, spec, window, &|layer| window.is_some() && rule(layer)).map(|_| ())
}

fn sliding(fields: &Fields, layers: usize, rule: Rule<'_>) -> Result<Vec<bool>> {
    let Some(kinds) = fields.get("layer_types") else { return Ok((0..layers).map(rule).collect()) };
    let slides = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(Error::data(format!("the layer type {kind} is not supported"))
            .hint("supported: full_attention, sliding_attention")),
    };
    let kinds = kinds.as_array().map(Vec::as_slice).unwrap_or_default();
    if kinds.len() != layers {
        return Err(Error::data(format!("layer_types names {} of {layers} layers", kinds.len())));
    }
    kinds.iter().map(slides).collect()
}
