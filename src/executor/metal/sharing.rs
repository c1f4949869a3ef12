//! Values that are not alive at the same time share a buffer.

/// Bytes, and the batches in which they are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
}

/// Gives each value a buffer that it begins. Returns the bytes of the buffers, the largest first, and the buffer of each
/// value.
///
/// Values are taken by size, so that a buffer is as large as its first value, and each goes to the smallest buffer that
/// is free in all its batches ("greedy by size" for shared objects: Pisarchyk and Lee 2020, arXiv:2001.03288).
pub fn share(values: &[Lifetime]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(values[index].bytes), values[index].first, index));
    let mut buffers: Vec<usize> = Vec::new();
    let mut taken: Vec<Vec<Lifetime>> = Vec::new();
    let mut of = vec![0; values.len()];
    for index in order {
        let value = values[index];
        let free = |others: &Vec<Lifetime>| {
            others.iter().all(|other| other.last < value.first || value.last < other.first)
        };
        let found = taken.iter().rposition(free).unwrap_or_else(|| {
            buffers.push(value.bytes);
            taken.push(Vec::new());
            taken.len() - 1
        });
        taken[found].push(value);
        of[index] = found;
    }
    (buffers, of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lifetimes() -> impl Strategy<Value = Vec<Lifetime>> {
        let one = (1usize..1000, 0usize..20, 0usize..8);
        let one = one.prop_map(|(bytes, first, length)| Lifetime { bytes, first, last: first + length });
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn values_alive_at_once_lie_apart(values in lifetimes()) {
            let (buffers, of) = share(&values);
            prop_assert!(buffers.is_sorted_by(|left, right| left >= right));
            for (index, value) in values.iter().enumerate() {
                prop_assert!(value.bytes <= buffers[of[index]]);
                for (other, &at) in values[..index].iter().zip(&of) {
                    let apart = other.last < value.first || value.last < other.first;
                    prop_assert!(apart || at != of[index]);
                }
            }
        }

        #[test]
        fn a_chain_of_equal_values_takes_two_buffers(length in 2usize..30) {
            let values: Vec<_> =
                (0..length).map(|at| Lifetime { bytes: 64, first: at, last: at + 1 }).collect();
            prop_assert_eq!(share(&values).0, vec![64; 2]);
        }
    }
}
