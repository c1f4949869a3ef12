//! A device whose memory is bytes and whose kernels run as C++: it replays programs as a GPU would, late and with the
//! commands between two barriers in another order.

use std::collections::HashMap;

use lazytune::error::{Error, Result};
use lazytune::executor::metal::{Bound, Buffer, Command, CommandQueue, Recorded, Region};
use lazytune::kernels::metal::{Access, INTERFACES};
use lazytune::plan::Plan;

use crate::gpu::Gpu;
use crate::memory::product;

/// Values that nobody wrote: NaN in every floating-point type.
const POISON: u8 = 0xff;

/// What waits until the host does.
enum Work {
    Upload(usize, usize, Vec<u8>),
    /// Whatever a step leaves in buffers of its own is lost to the next one.
    Poison(Vec<usize>),
    Command(Box<(Recorded, HashMap<Buffer, usize>)>),
}

/// Runs what was encoded when the host waits.
pub struct LateQueue {
    gpu: Gpu,
    memory: Vec<Vec<u8>>,
    waiting: Vec<Work>,
}

fn failed(problem: String) -> Error {
    Error::internal(problem)
}

impl LateQueue {
    pub fn new(gpu: Gpu) -> Self {
        Self { gpu, memory: Vec::new(), waiting: Vec::new() }
    }

    fn finish(&mut self) -> Result<()> {
        let mut beside: Vec<(Recorded, HashMap<Buffer, usize>)> = Vec::new();
        for work in std::mem::take(&mut self.waiting) {
            match work {
                Work::Command(command) if !ends(&command.0) => {
                    beside.push(*command);
                    continue;
                }
                _ => {}
            }
            self.run_reversed(std::mem::take(&mut beside))?;
            match work {
                Work::Upload(to, offset, bytes) => {
                    self.memory[to][offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
                Work::Poison(buffers) => buffers.iter().for_each(|&at| self.memory[at].fill(POISON)),
                Work::Command(_) => {}
            }
        }
        self.run_reversed(beside)
    }

    /// Commands without a barrier between them may run in any order.
    fn run_reversed(&mut self, commands: Vec<(Recorded, HashMap<Buffer, usize>)>) -> Result<()> {
        commands.into_iter().rev().try_for_each(|(recorded, names)| self.run(&recorded, &names))
    }

    fn run(&mut self, recorded: &Recorded, names: &HashMap<Buffer, usize>) -> Result<()> {
        match &recorded.command {
            Command::Barrier | Command::Commit => Ok(()),
            Command::Product { element, left, right, y, transpose_left, transpose_right, extents } => {
                assert_eq!(y.offset, 0, "a product does not begin its buffer");
                let bytes = |region: &Region| {
                    self.memory[names[&region.buffer]][region.offset..region.end()].to_vec()
                };
                let transposed = [*transpose_left, *transpose_right];
                let result = product(*element, &bytes(left), &bytes(right), transposed, *extents);
                self.memory[names[&y.buffer]][..result.len()].copy_from_slice(&result);
                Ok(())
            }
            Command::Launch { launch, element, head_dim, bindings } => {
                let gpu = Gpu { element: *element, head_dim: *head_dim, ..self.gpu.clone() };
                let at = |region: &Region| names[&region.buffer];
                let bound = |region: &Region| self.memory[at(region)][region.offset..].to_vec();
                let before: Vec<Vec<u8>> = bindings.iter().map(bound).collect();
                let after = gpu.run_bytes(launch, &before).map_err(failed)?;
                let interface =
                    INTERFACES.iter().find(|interface| interface.kernel == launch.kernel).unwrap();
                for (index, region) in bindings.iter().enumerate() {
                    let writes = interface.bindings[index].access == Access::Write;
                    let memory = &mut self.memory[at(region)][region.offset..];
                    let changed = (0..memory.len()).filter(|&i| before[index][i] != after[index][i]);
                    for i in changed {
                        assert!(writes, "{} writes what it reads", launch.kernel);
                        assert!(i < region.bytes, "{} writes beyond what it is bound to", launch.kernel);
                        memory[i] = after[index][i];
                    }
                }
                Ok(())
            }
        }
    }
}

fn ends(recorded: &Recorded) -> bool {
    matches!(recorded.command, Command::Barrier | Command::Commit)
}

impl CommandQueue for LateQueue {
    type Buffer = usize;

    fn name(&self) -> String {
        "late".into()
    }

    fn allocate(&mut self, bytes: usize, _: &str) -> Result<usize> {
        self.memory.push(vec![POISON; bytes]);
        Ok(self.memory.len() - 1)
    }

    fn allocate_shared(&mut self, bytes: usize, label: &str) -> Result<usize> {
        self.allocate(bytes, label)
    }

    /// Whoever still uses them finds nothing.
    fn release(&mut self, buffers: Vec<usize>) {
        buffers.into_iter().for_each(|buffer| self.memory[buffer] = Vec::new());
    }

    fn write_shared(&mut self, to: &usize, bytes: &[u8]) -> Result<()> {
        self.memory[*to][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_shared(&mut self, from: &usize, bytes: usize) -> Result<Vec<u8>> {
        Ok(self.memory[*from][..bytes].to_vec())
    }

    fn upload(&mut self, to: &usize, offset: usize, bytes: &[u8]) -> Result<()> {
        self.waiting.push(Work::Upload(*to, offset, bytes.to_vec()));
        Ok(())
    }

    fn download(&mut self, from: &usize, offset: usize, bytes: usize) -> Result<Vec<u8>> {
        self.finish()?;
        Ok(self.memory[*from][offset..offset + bytes].to_vec())
    }

    fn encode(&mut self, commands: &[Recorded], plan: &Plan, memory: &Bound<'_, usize>) -> Result<()> {
        // The first operation begins a step.
        if commands.first().map(|recorded| recorded.operation) == Some(plan.batches[0][0]) {
            let own = (0..).map_while(|index| memory.get(Buffer::Own(index)).ok().copied());
            self.waiting.push(Work::Poison(own.collect()));
        }
        for recorded in commands {
            let mut names = HashMap::new();
            let regions: Vec<&Region> = match &recorded.command {
                Command::Launch { bindings, .. } => bindings.iter().collect(),
                Command::Product { left, right, y, .. } => vec![left, right, y],
                Command::Barrier | Command::Commit => vec![],
            };
            for region in regions {
                names.insert(region.buffer, *memory.get(region.buffer)?);
            }
            self.waiting.push(Work::Command(Box::new((recorded.clone(), names))));
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        self.finish()
    }
}
