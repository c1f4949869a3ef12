//! Runs launches in the shim.

use std::io::Write;
use std::process::{Command, Stdio};

use half::{bf16, f16};
use lazytune::kernels::metal::launch::Launch;
use lazytune::kernels::metal::{Element, INTERFACES, Kind};

use crate::compiler::program;

/// Orders of threads: forward, reverse, shuffled.
const ORDERS: &[u64] = &[0, 1, 7];

/// What a check runs on.
#[derive(Debug, Clone)]
pub struct Gpu {
    pub element: Element,
    pub head_dim: usize,
    /// Values of the function constants, by index.
    pub constants: Vec<u64>,
    /// A barrier to leave out.
    pub skipped: Option<String>,
    pub orders: &'static [u64],
}

/// Values bound to a kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Buffer {
    /// Rounded to the library's type when it is bound.
    Activation(Vec<f32>),
    F32(Vec<f32>),
    U32(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Buffer {
    /// The numbers, as the kernel left them.
    pub fn floats(&self) -> &[f32] {
        match self {
            Self::Activation(values) | Self::F32(values) => values,
            Self::U32(_) | Self::Bytes(_) => panic!("not a buffer of floats"),
        }
    }
}

pub fn activations(values: &[f32]) -> Buffer {
    Buffer::Activation(values.to_vec())
}

pub fn floats(values: &[f32]) -> Buffer {
    Buffer::F32(values.to_vec())
}

/// An output full of NaN.
pub fn nothing(n: usize) -> Buffer {
    Buffer::Activation(vec![f32::NAN; n])
}

pub fn no_floats(n: usize) -> Buffer {
    Buffer::F32(vec![f32::NAN; n])
}

/// As `element` stores it.
pub fn rounded(element: Element, value: f32) -> f32 {
    match element {
        Element::F32 => value,
        Element::F16 => f16::from_f32(value).to_f32(),
        Element::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

pub fn encode(element: Element, buffer: &Buffer) -> Vec<u8> {
    match (buffer, element) {
        (Buffer::F32(values), _) | (Buffer::Activation(values), Element::F32) => {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        (Buffer::Activation(values), Element::F16) => {
            values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
        }
        (Buffer::Activation(values), Element::Bf16) => {
            values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
        }
        (Buffer::U32(values), _) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        (Buffer::Bytes(bytes), _) => bytes.clone(),
    }
}

pub fn decode(element: Element, buffer: &mut Buffer, bytes: &[u8]) {
    let pairs = || bytes.chunks_exact(2).map(|two| [two[0], two[1]]);
    let words = || bytes.chunks_exact(4).map(|four| [four[0], four[1], four[2], four[3]]);
    match (buffer, element) {
        (Buffer::F32(values), _) | (Buffer::Activation(values), Element::F32) => {
            *values = words().map(f32::from_le_bytes).collect();
        }
        (Buffer::Activation(values), Element::F16) => {
            *values = pairs().map(|two| f16::from_le_bytes(two).to_f32()).collect();
        }
        (Buffer::Activation(values), Element::Bf16) => {
            *values = pairs().map(|two| bf16::from_le_bytes(two).to_f32()).collect();
        }
        (Buffer::U32(values), _) => *values = words().map(u32::from_le_bytes).collect(),
        (Buffer::Bytes(values), _) => *values = bytes.to_vec(),
    }
}

impl Gpu {
    pub fn new(element: Element, head_dim: usize) -> Self {
        Self { element, head_dim, constants: vec![0; 3], skipped: None, orders: ORDERS }
    }

    /// As the library stores it.
    pub fn round(&self, values: Vec<f32>) -> Vec<f32> {
        values.into_iter().map(|value| rounded(self.element, value)).collect()
    }

    /// What a result may differ by, relative to the largest one: `f32` for sums in f32, or the rounding of a result.
    pub fn tolerance(&self, f32: f64) -> f64 {
        match self.element {
            Element::F32 => f32,
            Element::F16 => f32 + 1.0 / 2048.0,
            Element::Bf16 => f32 + 1.0 / 256.0,
        }
    }

    /// Runs a launch in several orders of threads and threadgroups, which must not change a bit, and takes over what it
    /// wrote. The spec is bound after the buffers.
    pub fn run(&self, launch: &Launch, buffers: &mut [Buffer]) -> Result<(), String> {
        let interface = INTERFACES.iter().find(|interface| interface.kernel == launch.kernel).unwrap();
        let specs = usize::from(!launch.spec.is_empty());
        assert_eq!(interface.bindings.len(), buffers.len() + specs, "bindings of {}", launch.kernel);
        for (binding, buffer) in interface.bindings.iter().zip(buffers.iter()) {
            let fits = matches!(
                (binding.kind, buffer),
                (Kind::Activation, Buffer::Activation(_))
                    | (Kind::F32, Buffer::F32(_))
                    | (Kind::U32, Buffer::U32(_))
                    | (Kind::Spec(..) | Kind::U8, Buffer::Bytes(_))
            );
            assert!(fits, "{} of {} is bound to {buffer:?}", binding.name, launch.kernel);
        }
        let inputs: Vec<Vec<u8>> = buffers.iter().map(|buffer| encode(self.element, buffer)).collect();
        for (buffer, bytes) in buffers.iter_mut().zip(self.run_bytes(launch, &inputs)?) {
            decode(self.element, buffer, &bytes);
        }
        Ok(())
    }

    /// The same, with everything as it lies in memory; returns what became of the buffers.
    pub fn run_bytes(&self, launch: &Launch, buffers: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
        let mut inputs = buffers.to_vec();
        inputs.extend((!launch.spec.is_empty()).then(|| launch.spec.clone()));
        let mut results = self.orders.iter().map(|&order| self.run_once(launch, order, &inputs));
        let first = results.next().unwrap()?;
        for (other, order) in results.zip(&self.orders[1..]) {
            if other? != first {
                return Err(format!("{}: order {order} of threads changes the result", launch.kernel));
            }
        }
        let mut rest = &first[..];
        let mut take = |length: usize| {
            let (bytes, next) = rest.split_at(length);
            rest = next;
            bytes.to_vec()
        };
        Ok(buffers.iter().map(|buffer| take(buffer.len())).collect())
    }

    fn run_once(&self, launch: &Launch, order: u64, inputs: &[Vec<u8>]) -> Result<Vec<u8>, String> {
        let line = |key: &str, [x, y, z]: [u32; 3]| format!("{key} {x} {y} {z}\n");
        let mut request = format!("kernel {}\norder {order}\n", launch.kernel);
        request += &line("groups", launch.threadgroups);
        request += &line("threads", launch.threads);
        if let Some(place) = &self.skipped {
            request += &format!("skip {place}\n");
        }
        for (index, value) in self.constants.iter().enumerate() {
            request += &format!("constant {index} {value}\n");
        }
        for (index, input) in inputs.iter().enumerate() {
            request += &format!("buffer {index} {}\n", input.len());
        }
        let mut request = (request + "data\n").into_bytes();
        inputs.iter().for_each(|input| request.extend(input));
        let mut child = Command::new(program(self.element, self.head_dim))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The program reads everything before it writes; one that fails early closes the pipe, and says why.
        let _ = stdin.write_all(&request);
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} ended with {}: {message}", launch.kernel, output.status))
    }
}
