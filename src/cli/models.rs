//! `lazytune models`: the families of models that can be trained.

use serde_json::{Value, json};

use super::arguments::ModelsArguments;
use super::printer::Printer;
use crate::error::Result;
use crate::model::{Family, families};

pub fn run(arguments: &ModelsArguments, printer: &Printer) -> Result<()> {
    if arguments.json {
        let all: Vec<Value> = families::ALL.into_iter().map(described).collect();
        return printer.json(&json!(all));
    }
    let width = |text: fn(&Family) -> &str| families::ALL.map(|family| text(family).len()).into_iter().max();
    let (name, class) = (width(|family| family.name), width(|family| family.class));
    let (name, class) = (name.unwrap_or(0), class.unwrap_or(0));
    printer.data(&format!(
        "{:name$}  {:class$}  {:<11}  {:<8}  notes",
        "models", "class", "safetensors", "gguf"
    ));
    for family in families::ALL {
        let gguf = family.gguf.as_ref().map_or("-", |layout| layout.architecture);
        printer.data(&format!(
            "{:name$}  {:class$}  {:<11}  {gguf:<8}  {}",
            family.name, family.class, "yes", family.notes
        ));
    }
    Ok(())
}

fn described(family: &Family) -> Value {
    json!({
        "models": family.name,
        "architecture": family.class,
        "model_type": family.model_type,
        "safetensors": true,
        "gguf": family.gguf.as_ref().map(|layout| layout.architecture),
        "notes": family.notes,
    })
}
