use crate::error::Result;
use crate::kernels::lanes::{Body, Lanes};
use crate::kernels::number::Real;
use crate::kernels::{In, Out};

pub struct MatMulReference<T> {
    pub dims: [usize; 4],
    pub tl: bool,
    pub tr: bool,
    pub a: In<T>,
    pub b: In<T>,
    pub y: Out<T>,
}

impl<T: Real> MatMulReference<T> {
    pub fn boxed(self) -> Result<Box<dyn crate::kernels::Kernel>>
    where
        T: 'static,
    {
        Ok(Box::new(self))
    }
}

impl<T: Real> Body for MatMulReference<T> {
    fn parts(&self) -> usize {
        self.dims[0] * self.dims[1]
    }
    #[inline(always)]
    fn compute<L: Lanes>(&self, part: usize, _scratch: &mut [u8]) {
        let [_, m, n, k] = self.dims;
        let (batch, i) = (part / m, part % m);
        let (a, b) = (&self.a.as_slice()[batch * m * k..], &self.b.as_slice()[batch * n * k..]);
        // SAFETY: rows
        let y = unsafe { self.y.range(part * n..(part + 1) * n) };
        for (j, y) in y.iter_mut().enumerate() {
            let mut sum = T::from_f64(0.0);
            for p in 0..k {
                let l = if self.tl { a[p * m + i] } else { a[i * k + p] };
                let r = if self.tr { b[j * k + p] } else { b[p * n + j] };
                sum = sum + l * r;
            }
            *y = sum;
        }
    }
}
