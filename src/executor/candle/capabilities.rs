//! What the GPU says of itself.

use candle_metal_kernels::metal::Device;
use objc2_metal::{MTLDevice, MTLGPUFamily};

/// Families that decide which kernels run, newest first.
const FAMILIES: [(MTLGPUFamily, &str); 7] = [
    (MTLGPUFamily(1010), "Apple10"),
    (MTLGPUFamily::Apple9, "Apple9"),
    (MTLGPUFamily::Apple8, "Apple8"),
    (MTLGPUFamily::Apple7, "Apple7"),
    (MTLGPUFamily::Apple6, "Apple6"),
    (MTLGPUFamily::Apple5, "Apple5"),
    (MTLGPUFamily::Metal3, "Metal3"),
];

/// Names with values, of the device that is used by default; nothing where there is none.
pub fn accelerator_facts() -> Vec<(&'static str, String)> {
    let Some(gpu) = Device::system_default() else { return Vec::new() };
    let device = gpu.as_ref();
    let supported = FAMILIES.iter().filter(|(family, _)| device.supportsFamily(*family));
    let families: Vec<&str> = supported.map(|(_, name)| *name).collect();
    let gib = |bytes: usize| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    vec![
        ("gpu", format!("{}, {}", device.name(), gpu.architecture_name())),
        ("gpu families", families.join(", ")),
        ("simd-group matrices", device.supportsFamily(MTLGPUFamily::Apple7).to_string()),
        ("unified memory", device.hasUnifiedMemory().to_string()),
        ("recommended working set", gib(gpu.recommended_max_working_set_size())),
        ("threadgroup memory", format!("{} bytes", device.maxThreadgroupMemoryLength())),
    ]
}
