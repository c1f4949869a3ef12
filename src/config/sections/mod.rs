//! One file per TOML section: its keys as serde reads them (the only home of defaults, ranges and descriptions), and
//! the checked form that the rest of the crate uses where the two differ.

mod adapter;
mod data;
mod hub_files;
mod log;
mod model;
mod optimizer;
mod schedule;
mod train;
mod values;

pub use adapter::{AdapterSection, Method, TargetModules};
pub use data::{DataSection, Overlong, TrainOn, Validation, WeightedSource};
pub use hub_files::HubFiles;
pub use log::LogSection;
pub use model::{DataType, DeviceChoice, ModelInit, ModelLocation, ModelSection};
pub use optimizer::{OptimizerName, OptimizerSection};
pub use schedule::{ScheduleKind, ScheduleSection};
pub use train::{RunLength, TrainSection};

pub(super) use adapter::KNOWN_TO_INIT;
pub(super) use data::{RawData, RawSource};
pub(super) use hub_files::is_hub_name;
pub(super) use model::RawModel;
pub(super) use train::RawTrain;
pub(super) use values::{ByteSize, SizeOrOff, TextOrList};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The file as written: every key with its default filled in, paths and sizes not yet looked at.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "lazytune run configuration", extend("required" = ["model", "data"]))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub model: RawModel,
    pub data: RawData,
    pub adapter: AdapterSection,
    pub optimizer: OptimizerSection,
    pub schedule: ScheduleSection,
    pub train: RawTrain,
    pub log: LogSection,
}
