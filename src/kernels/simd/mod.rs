//! Instruction sets, chosen at run time, and vectors of f32 to write kernels with once.
//!
//! Code that wants vectors implements [`Vectorized`] and hands itself to [`Isa::run`]:
//! everything it calls per element must be `#[inline(always)]`, so that it ends up inside one function compiled for
//! the instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_words;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod peak;
mod portable;
#[cfg(test)]
mod tests;
mod vector;

use std::sync::OnceLock;

pub use vector::Vector;

/// The instruction set that a kernel's inner loops use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// 16 lanes: AVX-512 F, BW, DQ and VL.
    Avx512,
    /// 8 lanes: AVX2 and FMA.
    Avx2,
    /// 4 lanes.
    Neon,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

/// Asks for a cache line ahead of its use; any address will do.
#[inline(always)]
pub fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 machine has the instruction, and it faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A computation written for any vector type.
pub trait Vectorized {
    type Output;

    /// Must be `#[inline(always)]`, or it is compiled without the instruction set.
    fn run<V: Vector>(self) -> Self::Output;
}

impl Isa {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// The widest instruction set of this machine.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| Self::available().next().unwrap_or(Self::Portable))
    }

    /// Every instruction set this machine can run, widest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && Self::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Portable => true,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
        }
    }

    /// Whether this machine multiplies pairs of bf16 with f32 accumulation (AVX-512 BF16).
    pub fn has_bf16_dot(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512 {
            return self.is_available() && is_x86_feature_detected!("avx512bf16");
        }
        false
    }

    /// The instruction set to multiply pairs of bf16 with: [`Vector::add_pairs`] of the AVX-512 vectors needs the dot
    /// product.
    pub fn for_pairs(self) -> Self {
        if self == Self::Avx512 && !self.has_bf16_dot() { Self::Avx2 } else { self }
    }

    /// Runs the task with this instruction set's vectors; the portable ones where the machine lacks it.
    #[inline]
    pub fn run<T: Vectorized>(self, task: T) -> T::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the guard has checked the features.
            Self::Avx512 if self.is_available() => unsafe { avx512::run(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the guard has checked the features.
            Self::Avx2 if self.is_available() => unsafe { avx2::run(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: every aarch64 target of this crate has NEON.
            Self::Neon => unsafe { neon::run(task) },
            _ => task.run::<portable::F32x8>(),
        }
    }
}
