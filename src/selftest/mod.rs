//! Runs every operation of a training step on a device and compares its results: on small ragged shapes with its formula
//! in f64, and on a real model's shapes, where it is also timed, with the CPU's kernels in f32.
//!
//! ```text
//! operations -> graphs (kernel, formula) -> subject (device, CPU, f64) -> report
//! ```

mod case;
mod graphs;
mod machine;
mod operations;
mod report;
mod sizes;
mod subject;

use std::time::Instant;

pub use report::{Fact, Peak, Report, Row, Skipped, Speed};

use crate::error::Result;
use crate::executor::{AsyncGraphExecutor, CpuDevice, CpuOptions, HostTensor, accelerator_facts};
use crate::graph::{DType, FrozenGraph};
use crate::plan::{Cost, cost};

use case::Case;
use sizes::Sizes;
use subject::Subject;

/// Of the crate that drives GPUs; a test holds it to Cargo.lock.
const CANDLE: &str = "0.11.1";
/// Elements that are copied to measure the memory's speed: more than caches hold.
const COPIED: usize = 1 << 25;
/// Rows, columns and depth of the product that arithmetic is measured with.
const MULTIPLIED: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Threads of the CPU.
    pub threads: usize,
    /// Only small shapes, and no timing.
    pub quick: bool,
}

/// The device under test and what it is compared with.
struct Bench {
    device: Subject,
    /// The CPU's kernels in f32, on f32 numbers and on those that bf16 has: weights are read once, so each keeps its own.
    singles: [Subject; 2],
    /// Plain operations in f64, one after the other.
    exact: Subject,
    options: Options,
}

/// Tests every operation; `done` is told how many of how many tests there have been.
///
/// # Errors
/// A device error if the device cannot even add numbers in f32. What single operations fail with is in the report.
pub async fn run(
    executor: AsyncGraphExecutor,
    options: Options,
    done: &mut dyn FnMut(usize, usize),
) -> Result<Report> {
    let start = Instant::now();
    let cpu = CpuOptions { threads: options.threads, ..CpuOptions::default() };
    let plain = CpuOptions { fused_kernels: false, fuse: false, merge: false, ..cpu };
    let on_cpu = |options| AsyncGraphExecutor::new(Box::new(CpuDevice::new(options)?));
    let bench = Bench {
        device: Subject::new(executor).await?,
        singles: [Subject::new(on_cpu(cpu)?).await?, Subject::new(on_cpu(cpu)?).await?],
        exact: Subject::new(on_cpu(plain)?).await?,
        options,
    };
    let device = bench.device.executor.device_name().to_owned();
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        candle: CANDLE.to_owned(),
        facts: machine::facts().into_iter().chain(accelerator(&device)).collect(),
        device,
        threads: options.threads,
        quick: options.quick,
        ..Report::default()
    };
    bench.fill(&mut report, done).await?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

fn accelerator(device: &str) -> Vec<Fact> {
    if device == "cpu" {
        return Vec::new();
    }
    accelerator_facts().into_iter().map(|(name, value)| Fact::new(name, value)).collect()
}

impl Bench {
    fn single(&self, tested: DType) -> &Subject {
        &self.singles[usize::from(tested == DType::Bf16)]
    }

    async fn fill(&self, report: &mut Report, done: &mut dyn FnMut(usize, usize)) -> Result<()> {
        let cases: Vec<(Case, Case)> =
            operations::cases(&Sizes::RAGGED).into_iter().zip(operations::cases(&Sizes::REAL)).collect();
        let total = cases.iter().map(|(small, _)| small.dtypes.len()).sum();
        let mut count = 0;
        for dtype in [DType::F32, DType::Bf16] {
            let of_type = || cases.iter().filter(|(small, _)| small.dtypes.contains(&dtype));
            if let Err(error) = self.probe(dtype).await {
                if dtype == DType::F32 {
                    return Err(error.context("probing the device with a product in f32"));
                }
                let what = format!("everything in {dtype}");
                report.skipped.push(Skipped { what, why: format!("the device refuses a product: {error}") });
                count += of_type().count();
                continue;
            }
            let peak = if self.options.quick { None } else { Some(self.peak(dtype).await?) };
            for (small, real) in of_type() {
                report.rows.push(self.row(small, real, dtype, peak.as_ref()).await);
                count += 1;
                done(count, total);
            }
            report.peaks.extend(peak);
        }
        self.explain(report);
        Ok(())
    }

    /// Says what was not tested as it would run on a device that has all kernels.
    fn explain(&self, report: &mut Report) {
        let plain: Vec<&str> = report
            .rows
            .iter()
            .filter(|row| row.form == PLAIN && row.dtype == DType::F32.to_string())
            .map(|row| row.operation.as_str())
            .collect();
        if !plain.is_empty() {
            let why = "the device has no kernels of these: their plain operations were tested, and not timed";
            let (what, why) = (plain.join("; "), why.to_owned());
            report.skipped.push(Skipped { what, why });
        }
        if report.device == "metal" {
            let why = "no operation of a training step has a quantized weight".to_owned();
            report.skipped.push(Skipped { what: "products with quantized weights".to_owned(), why });
        }
    }

    /// A small product, to see whether the device knows the type.
    async fn probe(&self, dtype: DType) -> Result<()> {
        let case = operations::product(8);
        let values = self.single(dtype).values(&case, dtype).await?;
        let graph = graphs::kernel(&case, dtype)?;
        self.device.run(&case, dtype, graph, &values).await.map(|_| ())
    }

    async fn peak(&self, dtype: DType) -> Result<Peak> {
        let copy = self.rate(&operations::copy(COPIED), dtype).await?;
        let product = self.rate(&operations::product(MULTIPLIED), dtype).await?;
        Ok(Peak {
            dtype: dtype.to_string(),
            copy_gb_per_second: copy.bytes / 1e9,
            gemm_gflop_per_second: product.flops / 1e9,
        })
    }

    /// Cost per second.
    async fn rate(&self, case: &Case, dtype: DType) -> Result<Cost> {
        let values = self.single(dtype).values(case, dtype).await?;
        let graph = graphs::kernel(case, dtype)?;
        let seconds = self.device.time(case, dtype, &graph, &values).await?.as_secs_f64();
        let cost = total(&graph);
        Ok(Cost { flops: cost.flops / seconds, bytes: cost.bytes / seconds })
    }

    async fn row(&self, small: &Case, real: &Case, dtype: DType, peak: Option<&Peak>) -> Row {
        let mut row = Row {
            operation: small.name.clone(),
            dtype: dtype.to_string(),
            form: KERNEL,
            tolerance: small.tolerance(dtype),
            ..Row::default()
        };
        if let Err(error) = self.measure(small, real, dtype, peak, &mut row).await {
            row.problem = Some(error.to_string());
        }
        row.passed = row.problem.is_none() && row.error.is_some_and(|error| error <= row.tolerance);
        row
    }

    async fn measure(
        &self,
        small: &Case,
        real: &Case,
        dtype: DType,
        peak: Option<&Peak>,
        row: &mut Row,
    ) -> Result<()> {
        let lowered = graphs::on_device(small, dtype, self.device.executor.target())?;
        row.form = if lowered.is_kernel { KERNEL } else { PLAIN };
        let values = self.single(dtype).values(small, dtype).await?;
        let exact = self.exact.run(small, DType::F64, graphs::exact(small)?, &values).await?;
        let single =
            self.single(dtype).run(small, DType::F32, graphs::kernel(small, DType::F32)?, &values).await?;
        let reference = largest_error(&single, &exact, &[]);
        if reference.is_none_or(|error| error > row.tolerance) {
            row.problem = Some("the CPU's own result in f32 is not that of the formula".to_owned());
            return Ok(());
        }
        let found = self.device.run(small, dtype, lowered.graph, &values).await?;
        row.error = largest_error(&found, &exact, &single);
        if let (Some(peak), true) = (peak, lowered.is_kernel) {
            self.measure_real(real, dtype, peak, row).await?;
        }
        Ok(())
    }

    /// Compares and times the kernel on a real model's shapes.
    async fn measure_real(&self, case: &Case, dtype: DType, peak: &Peak, row: &mut Row) -> Result<()> {
        let values = self.single(dtype).values(case, dtype).await?;
        let graph = graphs::kernel(case, dtype)?;
        // The CPU in f32 would be compared with itself.
        if self.device.executor.device_name() != self.single(dtype).executor.device_name()
            || dtype != DType::F32
        {
            let expected = graphs::kernel(case, DType::F32)?;
            let expected = self.single(dtype).run(case, DType::F32, expected, &values).await?;
            let found = self.device.run(case, dtype, graph.clone(), &values).await?;
            let error = largest_error(&found, &expected, &[]);
            row.error = row.error.zip(error).map(|(small, real)| small.max(real));
        }
        let seconds = self.device.time(case, dtype, &graph, &values).await?.as_secs_f64();
        let cost = total(&graph);
        let (gb_per_second, gflop_per_second) = (cost.bytes / seconds / 1e9, cost.flops / seconds / 1e9);
        row.speed = Some(Speed {
            ms: seconds * 1e3,
            gb_per_second,
            percent_of_copy: 100.0 * gb_per_second / peak.copy_gb_per_second,
            gflop_per_second,
            percent_of_gemm: 100.0 * gflop_per_second / peak.gemm_gflop_per_second,
        });
        Ok(())
    }
}

const KERNEL: &str = "kernel";
const PLAIN: &str = "plain";

fn total(graph: &FrozenGraph) -> Cost {
    (0..graph.nodes().len()).map(|index| cost(graph, index)).sum()
}

/// Of all results; those that `expected` lacks are compared with `others`. `None` where a number is not finite, or an id is
/// another one.
fn largest_error(found: &[HostTensor], expected: &[HostTensor], others: &[HostTensor]) -> Option<f64> {
    let all = expected.iter().chain(others.iter().skip(expected.len()));
    found
        .iter()
        .zip(all)
        .try_fold(0.0f64, |worst, (found, expected)| Some(worst.max(error(found, expected)?)))
}

/// The largest difference, relative to the largest expected magnitude.
fn error(found: &HostTensor, expected: &HostTensor) -> Option<f64> {
    if found.tensor.dtype == DType::U32 {
        return (found == expected).then_some(0.0);
    }
    let (found, expected) = (found.to_f64(), expected.to_f64());
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |scale, value| scale.max(value.abs()));
    let differences = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
    let worst = differences.fold(0.0, |worst: f64, difference| {
        if difference.is_nan() {
            f64::NAN
        } else if worst.is_nan() {
            worst
        } else {
            worst.max(difference)
        }
    });
    (worst.is_finite() && found.len() == expected.len()).then_some(worst / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::compile;

    #[test]
    fn the_version_of_candle_is_the_locked_one() {
        let lock = include_str!("../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"candle-core\"\nversion = \"{CANDLE}\"")));
    }

    #[test]
    fn every_copy_that_is_timed_is_computed() {
        let target = crate::executor::CpuTarget(CpuOptions::default());
        let target = graphs::OneByOne(&target);
        for case in operations::cases(&Sizes::RAGGED) {
            let graph = graphs::kernel(&case, case.dtypes[0]).unwrap();
            if graph.nodes().iter().any(|node| node.operation.updates_state()) {
                continue;
            }
            let operations =
                |copies| compile(graphs::repeated(&graph, copies).unwrap(), 0, &target).unwrap().operations();
            assert_eq!(operations(3), 3 * operations(1), "{}", case.name);
        }
    }

    #[test]
    fn an_error_is_relative_to_the_largest_value_and_never_hides_what_is_no_number() {
        let tensor = |values: &[f32]| HostTensor::f32(&[values.len()], values.to_vec()).unwrap();
        let ids = |values: &[u32]| HostTensor::u32(&[values.len()], values.to_vec()).unwrap();
        let expected = tensor(&[1.0, -4.0, 0.0]);
        assert_eq!(error(&tensor(&[1.0, -4.0, 0.5]), &expected), Some(0.125));
        assert_eq!(error(&tensor(&[f32::NAN, -4.0, 0.0]), &expected), None);
        assert_eq!(error(&tensor(&[f32::INFINITY, 0.0, 0.0]), &expected), None);
        assert_eq!(error(&ids(&[3, 7]), &ids(&[3, 7])), Some(0.0));
        assert_eq!(error(&ids(&[3, 7]), &ids(&[3, 8])), None);
        let others = [tensor(&[9.0]), tensor(&[2.0])];
        assert_eq!(largest_error(&[expected.clone(), tensor(&[3.0])], &[expected], &others), Some(0.5));
    }
}
