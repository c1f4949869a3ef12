//! Compiled kernels.

use std::collections::HashMap;

use candle_core::MetalDevice;
use candle_metal_kernels::metal::{ComputePipeline, ConstantValues, Library, Value};
use objc2_metal::{MTLCompileOptions, MTLMathMode};

use super::hardware::refused;
use crate::error::Result;
use crate::kernels::metal::{Element, library_source};

/// What a library is compiled for: the type of activations and the width of heads.
pub(super) type Variant = (Element, usize);

/// Libraries and pipelines, compiled when a program first needs them.
#[derive(Default)]
pub(super) struct Pipelines {
    libraries: HashMap<Variant, Library>,
    pipelines: HashMap<(Variant, &'static str), ComputePipeline>,
}

impl Pipelines {
    fn library(&mut self, device: &MetalDevice, variant: Variant) -> Result<Library> {
        if let Some(library) = self.libraries.get(&variant) {
            return Ok(library.clone());
        }
        let options = MTLCompileOptions::new();
        // Masked scores and the sums of exponentials rely on infinities and on the order of additions.
        options.setMathMode(MTLMathMode::Safe);
        let source = library_source(variant.0, variant.1);
        let library =
            device.metal_device().new_library_with_source(&source, Some(&options)).map_err(refused)?;
        self.libraries.insert(variant, library.clone());
        Ok(library)
    }

    pub fn get(
        &mut self,
        device: &MetalDevice,
        variant: Variant,
        kernel: &'static str,
    ) -> Result<ComputePipeline> {
        if let Some(pipeline) = self.pipelines.get(&(variant, kernel)) {
            return Ok(pipeline.clone());
        }
        // Sums by SIMD groups; no operation of a graph has a quantized weight.
        let constants = ConstantValues::new(vec![(0, Value::Bool(false)), (1, Value::U16(0))]);
        let function =
            self.library(device, variant)?.get_function(kernel, Some(&constants)).map_err(refused)?;
        let pipeline = device.metal_device().new_compute_pipeline_state_with_function(&function);
        let pipeline = pipeline.map_err(refused)?;
        self.pipelines.insert((variant, kernel), pipeline.clone());
        Ok(pipeline)
    }
}
