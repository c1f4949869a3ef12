//! Which commands have to wait for which, by the bytes that they touch.

use std::collections::HashMap;

use super::program::{Buffer, Command, Holder, Program, Region, Touch};
use crate::error::{Error, Result};

/// What was touched since the last barrier.
#[derive(Debug, Default)]
pub(super) struct Hazards {
    touched: HashMap<Buffer, Vec<(Region, bool)>>,
}

impl Hazards {
    /// Whether a command must not run beside those that were noted.
    pub fn conflict(&self, touches: &[Touch]) -> bool {
        touches.iter().any(|touch| {
            let others = self.touched.get(&touch.region.buffer);
            others
                .into_iter()
                .flatten()
                .any(|(region, written)| (touch.writes || *written) && region.overlaps(&touch.region))
        })
    }

    pub fn note(&mut self, touches: &[Touch]) {
        for touch in touches {
            self.touched.entry(touch.region.buffer).or_default().push((touch.region, touch.writes));
        }
    }

    pub fn clear(&mut self) {
        self.touched.clear();
    }
}

/// Checks that no command touches what another one writes without a barrier between them, and that what commands read
/// is what its owner wrote; `outputs` are read at the end.
///
/// # Errors
/// An internal error that names the first command at fault.
pub fn check(program: &Program, outputs: &[(usize, Region)]) -> Result<()> {
    let mut contents = Contents::default();
    let mut beside: Vec<usize> = Vec::new();
    for (index, recorded) in program.commands.iter().enumerate() {
        if matches!(recorded.command, Command::Barrier | Command::Commit) {
            beside.clear();
            continue;
        }
        for &other in &beside {
            let earlier = &program.commands[other].touches;
            let clash = |left: &Touch, right: &Touch| {
                (left.writes || right.writes) && left.region.overlaps(&right.region)
            };
            if recorded.touches.iter().any(|touch| earlier.iter().any(|other| clash(touch, other))) {
                return Err(Error::internal(format!(
                    "commands {other} and {index} run at once and touch the same bytes"
                )));
            }
        }
        beside.push(index);
        let fault =
            |holder| Error::internal(format!("command {index} reads {holder:?}, which is overwritten"));
        for touch in recorded.touches.iter().filter(|touch| !touch.writes) {
            contents.intact(touch.holder, touch.region).then_some(()).ok_or_else(|| fault(touch.holder))?;
        }
        for touch in recorded.touches.iter().filter(|touch| touch.writes) {
            contents.write(touch.holder, touch.region);
        }
    }
    let lost = |node: &usize| Error::internal(format!("the output %{node} is overwritten"));
    outputs.iter().try_for_each(|(node, region)| {
        contents.intact(Holder::Node(*node), *region).then_some(()).ok_or_else(|| lost(node))
    })
}

/// Whose bytes lie in the program's own buffers.
#[derive(Debug, Default)]
struct Contents(HashMap<Buffer, Vec<(Region, Holder)>>);

impl Contents {
    fn write(&mut self, holder: Holder, region: Region) {
        let held = self.0.entry(region.buffer).or_default();
        let mut kept = Vec::with_capacity(held.len() + 2);
        for &(old, owner) in held.iter() {
            if !old.overlaps(&region) {
                kept.push((old, owner));
                continue;
            }
            if old.offset < region.offset {
                kept.push((old.part(0, region.offset - old.offset), owner));
            }
            if old.end() > region.end() {
                kept.push((old.after(region.end() - old.offset), owner));
            }
        }
        kept.push((region, holder));
        *held = kept;
    }

    /// Whether no byte of a region is someone else's, and some are the holder's; scratch memory may be bound unused.
    fn intact(&self, holder: Holder, region: Region) -> bool {
        if !matches!(region.buffer, Buffer::Own(_)) {
            return true;
        }
        let held = self.0.get(&region.buffer).into_iter().flatten();
        let mut held =
            held.filter(|(old, _)| old.overlaps(&region)).map(|(_, owner)| *owner == holder).peekable();
        match holder {
            Holder::Node(_) => held.peek().is_some() && held.all(|own| own),
            Holder::Scratch(..) | Holder::Table => {
                let held: Vec<bool> = held.collect();
                held.iter().all(|own| *own) || held.iter().all(|own| !own)
            }
        }
    }
}
