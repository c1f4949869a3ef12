//! The JSON schema of the file, derived from the section structs.

use super::sections::RawConfig;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// JSON schema (draft 2020-12) of a configuration file: every key with its type, default, range and description.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<RawConfig>().to_value();
    if let Some(sections) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (_, section) in sections.iter_mut() {
            // A section's own default repeats those of its keys, and an editor would paste all of it.
            if let Some(section) = section.as_object_mut() {
                section.remove("default");
            }
        }
    }
    schema
}
