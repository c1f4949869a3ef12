//! Fused operations on Metal: kernels of our own in the command encoder that candle keeps open, between its own.
//!
//! candle orders what it encodes by the buffers that are bound as inputs and outputs, so that kernels which do not
//! depend on each other run side by side. Nothing here waits for the GPU.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::op::BackpropOp;
use candle_core::{DType as CandleDType, Device as Hardware, MetalDevice, MetalStorage, Storage, Tensor};
use candle_metal_kernels::metal::{Buffer, ComputePipeline, ConstantValues, Library, Value};
use objc2_metal::{MTLCompileOptions, MTLDevice, MTLGPUFamily, MTLMathMode, MTLSize};

use super::device::{FusedKernels, candle_dtype, failed};
use crate::error::{Error, Result, ResultExt};
use crate::graph::{FrozenNode, TensorType};
use crate::kernels::metal::launch::Launch;
use crate::kernels::metal::lower::{Bound, Lowering, Place, Step, lower};
use crate::kernels::metal::{Access, Element, INTERFACES, library_source};

/// What a kernel is specialized for: the type of activations and the width of heads of its library.
type Variant = (Element, usize);

pub(super) struct MetalKernels {
    device: MetalDevice,
    libraries: HashMap<Variant, Library>,
    pipelines: HashMap<(Variant, &'static str), ComputePipeline>,
    /// Tables that do not change from step to step, by their contents.
    tables: HashMap<Vec<u8>, Arc<Buffer>>,
}

/// Where this variable is set, every fused operation is decomposed into plain ones.
const PLAIN: &str = "LAZYTUNE_PLAIN_METAL";

fn refused(error: impl std::fmt::Display) -> Error {
    let hint = format!("set {PLAIN}=1 to train with candle's kernels alone");
    Error::device(format!("Metal refused a kernel: {error}")).hint(hint)
}

impl MetalKernels {
    /// None where the GPU cannot multiply matrices within a SIMD group: families before Apple7, which virtual machines
    /// show too; or where the environment asks for plain operations.
    ///
    /// # Errors
    /// A device error if the hardware is not Metal.
    pub fn open(hardware: &Hardware) -> Result<Option<Box<dyn FusedKernels>>> {
        let device = hardware.as_metal_device().map_err(failed)?.clone();
        let multiplies = device.metal_device().as_ref().supportsFamily(MTLGPUFamily::Apple7);
        if !multiplies || std::env::var_os(PLAIN).is_some() {
            return Ok(None);
        }
        let kernels =
            Self { device, libraries: HashMap::new(), pipelines: HashMap::new(), tables: HashMap::new() };
        Ok(Some(Box::new(kernels)))
    }

    fn library(&mut self, variant: Variant) -> Result<Library> {
        if let Some(library) = self.libraries.get(&variant) {
            return Ok(library.clone());
        }
        let options = MTLCompileOptions::new();
        // Masked scores and the sums of exponentials rely on infinities and on the order of additions.
        options.setMathMode(MTLMathMode::Safe);
        let source = library_source(variant.0, variant.1);
        let library = self.device.metal_device().new_library_with_source(&source, Some(&options));
        let library = library.map_err(refused)?;
        self.libraries.insert(variant, library.clone());
        Ok(library)
    }

    fn pipeline(&mut self, variant: Variant, kernel: &'static str) -> Result<ComputePipeline> {
        if let Some(pipeline) = self.pipelines.get(&(variant, kernel)) {
            return Ok(pipeline.clone());
        }
        // Sums by SIMD groups; no operation of a graph has a quantized weight.
        let constants = ConstantValues::new(vec![(0, Value::Bool(false)), (1, Value::U16(0))]);
        let function = self.library(variant)?.get_function(kernel, Some(&constants)).map_err(refused)?;
        let device = self.device.metal_device();
        let pipeline = device.new_compute_pipeline_state_with_function(&function).map_err(refused)?;
        self.pipelines.insert((variant, kernel), pipeline.clone());
        Ok(pipeline)
    }

    /// Memory whose contents do not matter.
    fn allocate(&self, dims: &[usize], dtype: CandleDType) -> Result<Tensor> {
        let elements: usize = dims.iter().product();
        let buffer = self.device.new_buffer(elements, dtype, "fused").map_err(failed)?;
        let storage = Storage::Metal(MetalStorage::new(buffer, self.device.clone(), elements, dtype));
        Ok(Tensor::from_storage(storage, dims, BackpropOp::none(), false))
    }

    fn table(&mut self, bytes: &[u8]) -> Result<Arc<Buffer>> {
        if let Some(buffer) = self.tables.get(bytes) {
            return Ok(buffer.clone());
        }
        let buffer = self.device.new_buffer_with_data(bytes).map_err(failed)?;
        self.tables.insert(bytes.to_vec(), buffer.clone());
        Ok(buffer)
    }

    fn encode(
        &mut self,
        variant: Variant,
        launch: &Launch,
        bound: &[Bound],
        memory: &Memory<'_>,
    ) -> Result<()> {
        let pipeline = self.pipeline(variant, launch.kernel)?;
        let interface = INTERFACES.iter().find(|interface| interface.kernel == launch.kernel);
        let bindings = interface.map(|interface| interface.bindings).unwrap_or_default();
        let guard = self.device.command_encoder().map_err(failed)?;
        guard.set_compute_pipeline_state(&pipeline);
        let encoder = guard.as_ref();
        for (index, (to, binding)) in bound.iter().zip(bindings).enumerate() {
            let bind = |buffer: &Buffer, start: usize| match binding.access {
                Access::Write => encoder.set_output_buffer(index, Some(buffer), start + to.offset),
                Access::Read | Access::Constant(_) => {
                    encoder.set_input_buffer(index, Some(buffer), start + to.offset);
                }
            };
            if let Place::Table(table) = to.place {
                bind(memory.tables.get(table).ok_or_else(missing)?, 0);
                continue;
            }
            let tensor = memory.tensor(to.place)?;
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Metal(storage) = &*storage else {
                return Err(Error::internal("a value is not in Metal's memory"));
            };
            bind(storage.buffer(), layout.start_offset() * storage.dtype().size_in_bytes());
        }
        if !launch.spec.is_empty() {
            encoder.set_bytes_directly(bound.len(), launch.spec.len(), launch.spec.as_ptr().cast());
        }
        encoder.dispatch_thread_groups(size(launch.threadgroups), size(launch.threads));
        Ok(())
    }

    fn run_steps(&mut self, lowering: &Lowering, memory: &mut Memory<'_>) -> Result<()> {
        for step in &lowering.steps {
            match step {
                Step::Launch(launch, bound) => {
                    self.encode((lowering.element, lowering.head_dim), launch, bound, memory)?;
                }
                Step::Product { left, right, y, transpose_left, transpose_right, extents } => {
                    let [rows, columns, depth] = *extents;
                    let (left, right) = (memory.tensor(*left)?, memory.tensor(*right)?);
                    let left = if *transpose_left { left.t() } else { left.reshape((rows, depth)) };
                    let right = if *transpose_right { right.t() } else { Ok(right.clone()) };
                    let right = right.map_err(failed)?;
                    let product = left.map_err(failed)?.matmul(&right).map_err(failed)?;
                    debug_assert_eq!(product.dims(), [rows, columns]);
                    memory.replace(*y, product)?;
                }
            }
        }
        Ok(())
    }
}

fn size([width, height, depth]: [u32; 3]) -> MTLSize {
    MTLSize { width: width as usize, height: height as usize, depth: depth as usize }
}

fn missing() -> Error {
    Error::internal("a kernel is bound to nothing")
}

/// What the steps of one operation are bound to.
struct Memory<'a> {
    inputs: &'a [Tensor],
    /// None until a product gives it, or memory is allocated.
    outputs: Vec<Option<Tensor>>,
    scratch: Vec<Option<Tensor>>,
    tables: Vec<Arc<Buffer>>,
}

impl Memory<'_> {
    fn tensor(&self, place: Place) -> Result<&Tensor> {
        match place {
            Place::Input(index) => self.inputs.get(index),
            Place::Output(index) => self.outputs.get(index).and_then(Option::as_ref),
            Place::Scratch(index) => self.scratch.get(index).and_then(Option::as_ref),
            Place::Table(_) => None,
        }
        .ok_or_else(missing)
    }

    fn replace(&mut self, place: Place, value: Tensor) -> Result<()> {
        let to = match place {
            Place::Output(index) => self.outputs.get_mut(index),
            Place::Scratch(index) => self.scratch.get_mut(index),
            Place::Input(_) | Place::Table(_) => None,
        };
        *to.ok_or_else(missing)? = Some(value);
        Ok(())
    }
}

/// Places that products give, which need no memory beforehand.
fn given(lowering: &Lowering, place: Place) -> bool {
    lowering.steps.iter().any(|step| matches!(step, Step::Product { y, .. } if *y == place))
}

impl FusedKernels for MetalKernels {
    fn run(&mut self, node: &FrozenNode, types: &[TensorType], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let lowering = lower(&node.operation, types, &node.outputs)?;
        // Kernels read rows one after the other.
        let inputs = inputs.iter().map(Tensor::contiguous).collect::<candle_core::Result<Vec<_>>>();
        let inputs = inputs.map_err(failed)?;
        let in_place = node.operation.updates_state();
        let mut memory = Memory { inputs: &inputs, outputs: vec![], scratch: vec![], tables: vec![] };
        for (index, output) in node.outputs.iter().enumerate().filter(|_| !in_place) {
            let value = (!given(&lowering, Place::Output(index)))
                .then(|| self.allocate(output.shape.dims(), candle_dtype(output.dtype)));
            memory.outputs.push(value.transpose()?);
        }
        for (index, &bytes) in lowering.scratch.iter().enumerate() {
            let value = (!given(&lowering, Place::Scratch(index)))
                .then(|| self.allocate(&[bytes.max(4)], CandleDType::U8));
            memory.scratch.push(value.transpose()?);
        }
        for bytes in &lowering.tables {
            memory.tables.push(self.table(bytes)?);
        }
        self.run_steps(&lowering, &mut memory).context(|| format!("{:?}", node.operation))?;
        if in_place {
            return Ok(inputs.into_iter().take(1).collect());
        }
        memory.outputs.into_iter().map(|output| output.ok_or_else(missing)).collect()
    }
}
