//! The `README.md` beside an adapter.

use super::AdapterSpec;

/// A model card in the hub's format: front matter, then what the adapter is and how to load it.
pub(super) fn model_card(spec: &AdapterSpec, base_model: &str) -> String {
    // A base model that is a local path has no page on the hub to link to.
    let is_hub_name = base_model.split('/').count() == 2 && !base_model.starts_with(['.', '/', '~']);
    let base_line = if is_hub_name { format!("base_model: {base_model}\n") } else { String::new() };
    let AdapterSpec { r, alpha, dropout, target_modules, .. } = spec;
    let kind = if spec.use_dora { "DoRA" } else { "LoRA" };
    let saved = match spec.modules_to_save.as_slice() {
        [] => String::new(),
        names => format!("| trained in full | `{names:?}` |\n"),
    };
    format!(
        "---\nlibrary_name: peft\n{base_line}tags:\n- lora\n- lazytune\npipeline_tag: text-generation\n---\n\n\
         # {kind} adapter\n\n\
         Trained with lazytune on top of `{base_model}`.\n\n\
         | setting | value |\n|---|---|\n| rank | {r} |\n| alpha | {alpha} |\n| dropout | {dropout} |\n\
         | target modules | `{target_modules}` |\n{saved}\n\
         ```python\nfrom peft import AutoPeftModelForCausalLM\n\n\
         model = AutoPeftModelForCausalLM.from_pretrained(\"path/to/this/folder\")\n```\n"
    )
}
