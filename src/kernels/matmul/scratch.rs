/// Hands out f32 arrays from a thread's scratch memory.
pub struct Scratch<'a>(&'a mut [f32]);

impl<'a> Scratch<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Self {
        // SAFETY: every pattern of four bytes is an f32.
        let (_, floats, _) = unsafe { bytes.align_to_mut::<f32>() };
        Self(floats)
    }

    /// # Panics
    /// If less than `len` is left.
    pub fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        taken
    }

    pub fn rest(self) -> &'a mut [f32] {
        self.0
    }
}
