//! `lazytune config`

use super::arguments::{ConfigArguments, ConfigCommand};
use super::printer::Printer;
use crate::config;
use crate::error::{Error, Result};

pub fn run(arguments: &ConfigArguments, printer: &Printer) -> Result<()> {
    match &arguments.command {
        ConfigCommand::Schema => {
            let text = serde_json::to_string_pretty(&config::schema());
            printer.data(&text.map_err(|error| Error::internal(error.to_string()))?);
        }
        ConfigCommand::Show(file) => {
            let config = config::load_with_color(&file.path, &file.overrides, printer.colored())?;
            printer.data(config.to_toml()?.trim_end());
        }
    }
    Ok(())
}
