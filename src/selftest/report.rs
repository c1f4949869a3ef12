//! What a selftest found out. Units stand in the names; G is 10^9.

use serde::Serialize;

/// Everything a reader of an issue needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    pub version: String,
    pub candle: String,
    pub device: String,
    pub threads: usize,
    /// The machine and what is known of the device.
    pub facts: Vec<Fact>,
    /// Only small shapes were run, and nothing was timed.
    pub quick: bool,
    pub peaks: Vec<Peak>,
    pub rows: Vec<Row>,
    pub skipped: Vec<Skipped>,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

impl Fact {
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into() }
    }
}

/// What operations of one type are measured against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Peak {
    pub dtype: String,
    pub copy_gb_per_second: f64,
    pub gemm_gflop_per_second: f64,
}

/// One operation in one type.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Row {
    pub operation: String,
    pub dtype: String,
    /// A kernel of the operation, or its formula in plain operations.
    pub form: &'static str,
    /// The largest difference, relative to the largest expected magnitude; `None` where a result is not a number.
    pub error: Option<f64>,
    pub tolerance: f64,
    pub passed: bool,
    /// Why it failed.
    pub problem: Option<String>,
    /// One run at the real size.
    pub speed: Option<Speed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    pub ms: f64,
    pub gb_per_second: f64,
    pub percent_of_copy: f64,
    pub gflop_per_second: f64,
    pub percent_of_gemm: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Skipped {
    pub what: String,
    pub why: String,
}

impl Report {
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|row| !row.passed).count()
    }
}
