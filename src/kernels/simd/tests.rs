use half::bf16;

use super::{Isa, Vector, Vectorized};

struct Map<'a, F>(&'a [f32], F);

trait Apply {
    fn apply<V: Vector>(&self, x: V) -> V;
}

impl<F: Apply> Vectorized for Map<'_, F> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.0.len()];
        for (x, y) in self.0.chunks(V::LANES).zip(out.chunks_mut(V::LANES)) {
            // SAFETY: both chunks have that many elements.
            unsafe {
                self.1.apply(V::load_partial(x.as_ptr(), x.len())).store_partial(y.as_mut_ptr(), y.len())
            };
        }
        out
    }
}

struct Exp;

impl Apply for Exp {
    #[inline(always)]
    fn apply<V: Vector>(&self, x: V) -> V {
        x.exp()
    }
}

#[test]
fn exp_is_within_two_ulp_and_keeps_its_limits() {
    let xs: Vec<f32> = (-87_000..88_000).map(|i| i as f32 * 1e-3 + 1.37e-4).collect();
    for isa in Isa::available() {
        for (x, y) in xs.iter().zip(isa.run(Map(&xs, Exp))) {
            let exact = f64::from(*x).exp();
            assert!((f64::from(y) - exact).abs() <= 2.4e-7 * exact, "{isa:?}: exp({x}) = {y}, not {exact}");
        }
        let limits = isa.run(Map(&[f32::NEG_INFINITY, -1e30, 0.0, f32::INFINITY, f32::NAN], Exp));
        assert_eq!(limits[..4], [0.0, 0.0, 1.0, f32::INFINITY], "{isa:?}");
        assert!(limits[4].is_nan(), "{isa:?}");
    }
}

struct Exp2;

impl Apply for Exp2 {
    #[inline(always)]
    fn apply<V: Vector>(&self, x: V) -> V {
        x.exp2()
    }
}

#[test]
fn exp2_is_within_two_ulp_and_keeps_its_limits() {
    let xs: Vec<f32> = (-125_000..127_000).map(|i| i as f32 * 1e-3 + 1.37e-4).collect();
    for isa in Isa::available() {
        for (x, y) in xs.iter().zip(isa.run(Map(&xs, Exp2))) {
            let exact = f64::from(*x).exp2();
            assert!((f64::from(y) - exact).abs() <= 2.4e-7 * exact, "{isa:?}: 2^{x} = {y}, not {exact}");
        }
        let limits = isa.run(Map(&[f32::NEG_INFINITY, -1e30, 0.0, f32::INFINITY, f32::NAN], Exp2));
        assert_eq!(limits[..4], [0.0, 0.0, 1.0, f32::INFINITY], "{isa:?}");
        assert!(limits[4].is_nan(), "{isa:?}");
    }
}

struct Reciprocal;

impl Apply for Reciprocal {
    #[inline(always)]
    fn apply<V: Vector>(&self, x: V) -> V {
        x.reciprocal()
    }
}

#[test]
fn reciprocals_are_within_two_ulp_and_keep_their_limits() {
    let xs: Vec<f32> = (0..200_000u32).map(|i| f32::from_bits(0x0080_0000 + i * 10_007)).collect();
    for isa in Isa::available() {
        for (x, y) in xs.iter().zip(isa.run(Map(&xs, Reciprocal))) {
            let exact = 1.0 / f64::from(*x);
            // Results below the normal range have fewer digits.
            let bound = 2.4e-7 * exact + f64::from(f32::MIN_POSITIVE) * f64::from(f32::EPSILON);
            assert!((f64::from(y) - exact).abs() <= bound, "{isa:?}: 1 / {x} = {y}, not {exact}");
        }
        let limits = isa.run(Map(&[f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::NAN], Reciprocal));
        assert_eq!(limits[..3], [0.0, 0.0, f32::INFINITY], "{isa:?}");
        assert!(limits[3].is_nan(), "{isa:?}");
    }
}

struct RoundTrip<'a>(&'a [f32]);

impl Vectorized for RoundTrip<'_> {
    type Output = (Vec<bf16>, Vec<f32>, Vec<(f32, f32)>);

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        let mut narrow = vec![bf16::NAN; self.0.len()];
        let mut wide = vec![f32::NAN; self.0.len()];
        let mut reduced = Vec::new();
        for start in (0..self.0.len()).step_by(V::LANES) {
            // SAFETY: the length is a multiple of every vector's lanes.
            unsafe {
                let x = V::load(self.0.as_ptr().add(start));
                x.store_bf16(narrow.as_mut_ptr().add(start));
                V::load_bf16(narrow.as_ptr().add(start)).store(wide.as_mut_ptr().add(start));
                reduced.push((x.sum(), x.largest()));
            }
        }
        (narrow, wide, reduced)
    }
}

#[test]
fn bf16_rounds_to_nearest_even_and_reductions_see_every_lane() {
    let xs: Vec<f32> = (0..64u32).map(|i| f32::from_bits(0x3f80_7ff8 + i * 0x1_0001)).collect();
    for isa in Isa::available() {
        let (narrow, wide, reduced) = isa.run(RoundTrip(&xs));
        let expected: Vec<bf16> = xs.iter().copied().map(bf16::from_f32).collect();
        assert_eq!(narrow, expected, "{isa:?}");
        assert_eq!(wide, expected.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), "{isa:?}");
        let lanes = xs.len() / reduced.len();
        let (special, ..) = isa.run(RoundTrip(&[f32::NAN, f32::INFINITY, f32::MAX, -0.0].repeat(16)));
        assert!(special.iter().step_by(4).all(|x| x.is_nan()), "{isa:?}");
        assert!(special.iter().skip(1).step_by(4).all(|&x| x == bf16::INFINITY), "{isa:?}");
        assert!(special.iter().skip(2).step_by(4).all(|&x| x == bf16::INFINITY), "{isa:?}");
        assert!(special.iter().skip(3).step_by(4).all(|x| x.to_bits() == 0x8000), "{isa:?}");
        for (chunk, (sum, largest)) in xs.chunks(lanes).zip(reduced) {
            assert!((sum - chunk.iter().sum::<f32>()).abs() < 1e-4, "{isa:?}");
            assert_eq!(largest, chunk.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{isa:?}");
        }
    }
}

/// A matrix 16 wide, transposed block by block.
struct Transpose<'a>(&'a [f32]);

impl Vectorized for Transpose<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let mut out = vec![f32::NAN; 16 * 16];
        for row in (0..16).step_by(V::LANES) {
            for column in (0..16).step_by(V::LANES) {
                let from = self.0[row * 16 + column..].as_ptr();
                // SAFETY: every vector's lanes divide 16, so the block lies within both matrices.
                unsafe { V::transpose(from, 16, out[column * 16 + row..].as_mut_ptr(), 16) };
            }
        }
        out
    }
}

#[test]
fn blocks_are_transposed() {
    let xs: Vec<f32> = (0..=u8::MAX).map(f32::from).collect();
    for isa in Isa::available() {
        let ys = isa.run(Transpose(&xs));
        assert!((0..256).all(|i| ys[i] == xs[i % 16 * 16 + i / 16]), "{isa:?}");
    }
}

#[test]
fn an_absent_instruction_set_runs_portably() {
    for isa in [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable] {
        assert_eq!(isa.run(Map(&[0.0], Exp)), [1.0]);
    }
    assert!(Isa::detect().is_available());
}
