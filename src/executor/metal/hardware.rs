//! Metal itself: candle's queue, memory and matrix products, with our kernels in candle's encoder.
//!
//! candle keeps one concurrent encoder open, and puts a barrier before a dispatch that is bound to a buffer which one
//! since the last barrier had as an output, or that has as an output a buffer which one since then was bound to.
//! Programs know better, by bytes: so kernels bind all of their buffers as inputs, and a barrier is a buffer of no other
//! use that is bound as an output again. As an output it also makes the next encoder wait for this one.

use std::sync::Arc;

use candle_core::{DType, Device as Hardware, MetalDevice};
use candle_metal_kernels::metal::{Buffer, CommandsGuard, ComputeCommandEncoder};
use candle_metal_kernels::{GemmDType, call_mlx_gemm};
use objc2::rc::autoreleasepool;
use objc2_metal::{MTLDevice, MTLGPUFamily, MTLResourceOptions, MTLSize};

use super::counts::DISPATCHES_PER_BUFFER;
use super::device::ProgramDevice;
use super::pipelines::Pipelines;
use super::program::{Command, Recorded, Region};
use super::queue::{Bound, CommandQueue};
use super::record::SECONDS_PER_BUFFER;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::candle::CandleDevice;
use crate::executor::device::Device;
use crate::kernels::metal::launch::Launch;
use crate::kernels::metal::{Element, shared};
use crate::plan::Plan;

/// Where this variable is set, every fused operation is decomposed into plain ones, which candle runs.
const PLAIN: &str = "LAZYTUNE_PLAIN_METAL";
/// Seconds that a command buffer may be estimated to take.
const SECONDS: &str = "LAZYTUNE_METAL_BUFFER_SECONDS";
/// Calls of `command_encoder` after which candle commits a command buffer.
const CALLS: &str = "CANDLE_METAL_COMPUTE_PER_BUFFER";
/// Above what all kernels bind.
const SENTINEL_INDEX: usize = 30;
/// Bytes on their way to the GPU after which the host waits, so that their copies are given back.
const MOST_UPLOADED: usize = 256 << 20;

fn failed(error: candle_core::Error) -> Error {
    Error::new(ErrorKind::Device, error.to_string())
}

pub(super) fn refused(error: impl std::fmt::Display) -> Error {
    let hint = format!("set {PLAIN}=1 to train with candle's kernels alone");
    Error::device(format!("Metal refused a kernel: {error}")).hint(hint)
}

/// Opens the first Metal device. Where the GPU cannot multiply matrices within a SIMD group (families before Apple7,
/// which virtual machines show too), or the environment asks for it, candle runs plain operations one by one.
///
/// # Errors
/// A device error if there is none; a user error if the environment says what cannot be done.
pub fn open() -> Result<Box<dyn Device>> {
    let hook = std::panic::take_hook();
    // Where macOS is older than 15, candle panics instead of failing.
    std::panic::set_hook(Box::new(|_| {}));
    let opened = std::panic::catch_unwind(|| Hardware::new_metal(0));
    std::panic::set_hook(hook);
    let old = || Error::device("Metal could not be started").hint("macOS 15 or newer is needed");
    let hardware = opened.map_err(|_| old())?.map_err(failed)?;
    let device = hardware.as_metal_device().map_err(failed)?.clone();
    let multiplies = device.metal_device().as_ref().supportsFamily(MTLGPUFamily::Apple7);
    if !multiplies || std::env::var_os(PLAIN).is_some() {
        return Ok(Box::new(CandleDevice::new(hardware)));
    }
    let seconds = match std::env::var(SECONDS) {
        Ok(text) => text.parse().ok().filter(|seconds: &f64| *seconds > 0.0).ok_or_else(|| {
            Error::user(format!("{SECONDS} is {text:?}"))
                .hint("give seconds as a number above 0, such as 0.5")
        })?,
        Err(_) => SECONDS_PER_BUFFER,
    };
    Ok(Box::new(ProgramDevice::new(MetalQueue::new(device)?, seconds)))
}

/// candle's command queue, with memory of its own.
struct MetalQueue {
    device: MetalDevice,
    pipelines: Pipelines,
    /// Bound as an output to order encoders and kernels; nobody writes it.
    sentinel: Arc<Buffer>,
    /// How often candle's `command_encoder` is called for a commit.
    calls: usize,
    /// Bytes uploaded since the host last waited.
    uploaded: usize,
}

impl MetalQueue {
    fn new(device: MetalDevice) -> Result<Self> {
        let set = std::env::var(CALLS).ok().and_then(|text| text.parse().ok());
        let calls: usize = set.unwrap_or(DISPATCHES_PER_BUFFER);
        if calls > 1000 {
            return Err(Error::user(format!("{CALLS} is {calls}, and a commit takes as many calls"))
                .hint(format!("unset {CALLS}: a step is committed once whatever it is")));
        }
        let sentinel = device.new_private_buffer(16, DType::U8, "barrier").map_err(failed)?;
        Ok(Self { device, pipelines: Pipelines::default(), sentinel, calls: calls.max(1), uploaded: 0 })
    }

    fn encode_all(
        &mut self,
        commands: &[Recorded],
        plan: &Plan,
        memory: &Bound<'_, Arc<Buffer>>,
    ) -> Result<()> {
        let Self { device, pipelines, sentinel, calls, .. } = self;
        let mut guard = device.command_encoder().map_err(failed)?;
        bind_sentinel(&guard, sentinel);
        for recorded in commands {
            #[cfg(feature = "metal-debug-labels")]
            let label = label(plan, recorded);
            #[cfg(not(feature = "metal-debug-labels"))]
            let _ = plan;
            match &recorded.command {
                Command::Barrier => bind_sentinel(&guard, sentinel),
                Command::Commit => {
                    drop(guard);
                    guard = commit(device, *calls)?;
                    bind_sentinel(&guard, sentinel);
                }
                Command::Launch { launch, element, head_dim, bindings } => {
                    #[cfg(feature = "metal-debug-labels")]
                    let _group = guard.debug_group(&label);
                    let pipeline = pipelines.get(device, (*element, *head_dim), launch.kernel)?;
                    guard.set_compute_pipeline_state(&pipeline);
                    dispatch(guard.as_ref(), launch, bindings, memory)?;
                }
                Command::Product { .. } => {
                    #[cfg(feature = "metal-debug-labels")]
                    let _group = guard.debug_group(&label);
                    multiply(device, guard.as_ref(), &recorded.command, memory)?;
                }
            }
        }
        Ok(())
    }
}

/// Before all dispatches that follow, a barrier, unless nothing was dispatched since the last one.
fn bind_sentinel(guard: &CommandsGuard<'_>, sentinel: &Buffer) {
    guard.as_ref().set_output_buffer(SENTINEL_INDEX, Some(sentinel), 0);
}

/// Ends the command buffer. candle commits when `command_encoder` is called for the `calls`-th time since it last did:
/// as many calls commit once, wherever the count stands, and all but the first after it just return the encoder.
fn commit(device: &MetalDevice, calls: usize) -> Result<CommandsGuard<'_>> {
    for _ in 1..calls {
        drop(device.command_encoder().map_err(failed)?);
    }
    device.command_encoder().map_err(failed)
}

fn dispatch(
    encoder: &ComputeCommandEncoder,
    launch: &Launch,
    bindings: &[Region],
    memory: &Bound<'_, Arc<Buffer>>,
) -> Result<()> {
    for (index, region) in bindings.iter().enumerate() {
        encoder.set_input_buffer(index, Some(memory.get(region.buffer)?), region.offset);
    }
    if !launch.spec.is_empty() {
        encoder.set_bytes_directly(bindings.len(), launch.spec.len(), launch.spec.as_ptr().cast());
    }
    let size = |[width, height, depth]: [u32; 3]| MTLSize {
        width: width as usize,
        height: height as usize,
        depth: depth as usize,
    };
    encoder.dispatch_thread_groups(size(launch.threadgroups), size(launch.threads));
    Ok(())
}

fn multiply(
    device: &MetalDevice,
    encoder: &ComputeCommandEncoder,
    command: &Command,
    memory: &Bound<'_, Arc<Buffer>>,
) -> Result<()> {
    let Command::Product { element, left, right, y, transpose_left, transpose_right, extents } = command
    else {
        return Err(Error::internal("not a product"));
    };
    let [rows, columns, depth] = *extents;
    let dtype = match element {
        Element::F32 => GemmDType::F32,
        Element::F16 => GemmDType::F16,
        Element::Bf16 => GemmDType::BF16,
    };
    let left_stride = if *transpose_left { [rows * depth, 1, rows] } else { [rows * depth, depth, 1] };
    let right_stride =
        if *transpose_right { [columns * depth, 1, depth] } else { [columns * depth, columns, 1] };
    call_mlx_gemm(
        device.metal_device(),
        encoder,
        device.kernels(),
        dtype,
        (1, rows, columns, depth),
        &left_stride,
        left.offset,
        memory.get(left.buffer)?,
        &right_stride,
        right.offset,
        memory.get(right.buffer)?,
        memory.get(y.buffer)?,
    )
    .map_err(|error| Error::device(format!("Metal refused a product: {error}")))
}

/// Names a command in a GPU capture by its batch and operation.
#[cfg(feature = "metal-debug-labels")]
fn label(plan: &Plan, recorded: &Recorded) -> String {
    let index = recorded.operation;
    let batch = plan.batches.iter().position(|batch| batch.contains(&index)).unwrap_or_default();
    let kind = crate::executor::kind_of(&plan.graph.nodes()[index].operation);
    format!("batch {batch}: %{index} {kind}")
}

impl CommandQueue for MetalQueue {
    type Buffer = Arc<Buffer>;

    fn name(&self) -> String {
        "metal".into()
    }

    fn allocate(&mut self, bytes: usize, label: &str) -> Result<Arc<Buffer>> {
        let buffer = self.device.new_private_buffer(bytes.max(16), DType::U8, label);
        let buffer = buffer.map_err(|error| {
            Error::memory(format!("Metal has no {bytes} bytes for {label}: {error}"))
                .hint("lower train.batch_size or data.max_length, or set model.memory_budget")
        })?;
        buffer.set_label(label);
        Ok(buffer)
    }

    fn allocate_shared(&mut self, bytes: usize, label: &str) -> Result<Arc<Buffer>> {
        let options = MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
        let buffer = self.device.metal_device().new_buffer(bytes.max(16), options);
        let buffer =
            buffer.map_err(|error| Error::memory(format!("Metal has no memory for {label}: {error}")))?;
        buffer.set_label(label);
        self.device.register_buffers([&buffer]);
        Ok(Arc::new(buffer))
    }

    fn release(&mut self, buffers: Vec<Arc<Buffer>>) {
        self.device.unregister_buffers(buffers.iter().map(AsRef::as_ref));
    }

    fn write_shared(&mut self, to: &Arc<Buffer>, bytes: &[u8]) -> Result<()> {
        shared::write(to, bytes)
    }

    fn read_shared(&mut self, from: &Arc<Buffer>, bytes: usize) -> Result<Vec<u8>> {
        shared::read(from, bytes)
    }

    fn upload(&mut self, to: &Arc<Buffer>, offset: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.uploaded > MOST_UPLOADED {
            self.synchronize()?;
        }
        self.uploaded += bytes.len();
        let source = self.device.new_buffer_with_data(bytes).map_err(failed)?;
        let mut blit = self.device.blit_command_encoder().map_err(failed)?;
        blit.copy_from_buffer(&source, 0, to, offset, bytes.len());
        Ok(())
    }

    fn download(&mut self, from: &Arc<Buffer>, offset: usize, bytes: usize) -> Result<Vec<u8>> {
        let copy = self.device.allocate_buffer(bytes.max(16)).map_err(failed)?;
        {
            let mut blit = self.device.blit_command_encoder().map_err(failed)?;
            blit.copy_from_buffer(from, offset, &copy, 0, bytes);
        }
        self.synchronize()?;
        shared::read(&copy, bytes)
    }

    fn encode(&mut self, commands: &[Recorded], plan: &Plan, memory: &Bound<'_, Arc<Buffer>>) -> Result<()> {
        autoreleasepool(|_| self.encode_all(commands, plan, memory))
    }

    fn synchronize(&mut self) -> Result<()> {
        self.uploaded = 0;
        self.device.wait_until_completed().map_err(failed)
    }
}
