//! Liveness and memory: every intermediate gets a range of one arena, and ranges are reused.

/// Where a value's bytes lie in the arena, and in which batches they are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub offset: usize,
    pub bytes: usize,
    /// The batch that writes the value.
    pub first: usize,
    /// The last batch that reads it.
    pub last: usize,
}

impl Slot {
    /// Whether both are alive in some batch.
    pub fn coexists(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Alignment of every slot, in bytes: one cache line, and the widest vector register.
pub const ALIGNMENT: usize = 64;

pub fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// Gives every slot the lowest offset that is free during its life, the largest slots first. Returns the arena's size.
///
/// Offsets assigned greedily by size stay close to the lower bound, the most bytes alive at once (Pisarchyk and Lee
/// 2020, arXiv:2001.03288).
pub fn assign_offsets(slots: &mut [Slot]) -> usize {
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(slots[index].bytes), slots[index].first, index));
    let mut placed: Vec<Slot> = Vec::with_capacity(slots.len());
    for index in order {
        let slot = &mut slots[index];
        let mut offset = 0;
        // `placed` is sorted by offset: the first gap that is wide enough wins.
        for other in placed.iter().filter(|other| other.coexists(slot)) {
            if offset + slot.bytes <= other.offset {
                break;
            }
            offset = offset.max(other.offset + align(other.bytes));
        }
        slot.offset = offset;
        let at = placed.partition_point(|other| other.offset <= offset);
        placed.insert(at, *slot);
    }
    placed.iter().map(|slot| slot.offset + align(slot.bytes)).max().unwrap_or(0)
}

/// The most bytes alive in any batch: no assignment of offsets can need less.
pub fn lower_bound(slots: &[Slot]) -> usize {
    let batches = slots.iter().map(|slot| slot.last + 1).max().unwrap_or(0);
    let alive = |batch: usize| {
        slots.iter().filter(|s| s.first <= batch && batch <= s.last).map(|s| align(s.bytes)).sum::<usize>()
    };
    (0..batches).map(alive).max().unwrap_or(0)
}
