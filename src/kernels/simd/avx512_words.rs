//! Products of words in memory with rows of words in registers: a word is an f32 or a pair of bf16.

use std::arch::asm;
use std::arch::x86_64::*;

use super::avx512::F32x16;

/// Loads the word at an address into every lane and adds its products with the rows to the sums.
macro_rules! accumulate {
    ($instruction:literal, $address:literal, [$($sum:ident += $row:ident),*], $base:ident, $($stride:tt)*) => {
        // SAFETY: the caller promises that the address can be read and that the instruction exists; the rest are
        // registers.
        unsafe {
            let _word: __m512;
            asm!(
                concat!("vbroadcastss {word}, dword ptr ", $address),
                $(concat!($instruction, " {", stringify!($sum), "}, {", stringify!($row), "}, {word}"),)*
                word = out(zmm_reg) _word,
                $($sum = inout(zmm_reg) $sum.0, $row = in(zmm_reg) $row.0,)*
                base = in(reg) $base,
                $($stride)*
                options(nostack, preserves_flags)
            )
        }
    };
}

macro_rules! accumulate_at {
    ($index:expr, $instruction:literal, $sums:tt, $base:ident, $stride:ident) => {
        match $index {
            0 => accumulate!($instruction, "[{base}]", $sums, $base,),
            1 => accumulate!($instruction, "[{base} + {stride}]", $sums, $base, stride = in(reg) $stride,),
            _ => accumulate!($instruction, "[{base} + 2 * {stride}]", $sums, $base, stride = in(reg) $stride,),
        }
    };
}

macro_rules! accumulate_all {
    ($index:expr, $instruction:literal, $sums:expr, $rows:expr, $base:ident, $stride:ident) => {
        match ($sums, $rows) {
            ([a], [v]) => accumulate_at!($index, $instruction, [a += v], $base, $stride),
            ([a, b], [v, w]) => accumulate_at!($index, $instruction, [a += v, b += w], $base, $stride),
            ([a, b, c], [v, w, x]) => {
                accumulate_at!($index, $instruction, [a += v, b += w, c += x], $base, $stride)
            }
            ([a, b, c, d], [v, w, x, y]) => {
                accumulate_at!($index, $instruction, [a += v, b += w, c += x, d += y], $base, $stride)
            }
            _ => {}
        }
    };
}

/// [`super::Vector::add_words`] for up to four sums.
///
/// # Safety
/// As for the method.
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn add_words<const PAIRS: bool, const INDEX: usize>(
    sums: &mut [F32x16],
    rows: &[F32x16],
    base: *const f32,
    stride: usize,
) {
    if PAIRS {
        accumulate_all!(INDEX, "vdpbf16ps", sums, rows, base, stride);
    } else {
        accumulate_all!(INDEX, "vfmadd231ps", sums, rows, base, stride);
    }
}

/// Both vectors rounded to bf16, denormals to zero: `first`'s lanes in the low halves of the result's words.
///
/// # Safety
/// The machine has AVX-512 BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn pack_pairs(first: __m512, second: __m512) -> __m512 {
    let narrow: __m512i;
    // SAFETY: registers only; the caller promises the instruction.
    unsafe {
        asm!(
            "vcvtne2ps2bf16 {narrow}, {second}, {first}",
            narrow = lateout(zmm_reg) narrow,
            first = in(zmm_reg) first,
            second = in(zmm_reg) second,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    // Word i takes halves i and 16 + i.
    let order = _mm512_add_epi32(
        _mm512_set1_epi32(0x10 << 16),
        _mm512_mullo_epi32(
            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
            _mm512_set1_epi32(0x1_0001),
        ),
    );
    _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, narrow))
}

/// The lower halves of all words, and the upper ones: by a permutation, because the instruction that narrows words is
/// slow to store what it narrows.
///
/// # Safety
/// The machine has AVX-512 BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn halves(words: __m512) -> [__m256i; 2] {
    let order = _mm512_set_epi32(
        0x1f_001d, 0x1b_0019, 0x17_0015, 0x13_0011, 0xf_000d, 0xb_0009, 0x7_0005, 0x3_0001, 0x1e_001c,
        0x1a_0018, 0x16_0014, 0x12_0010, 0xe_000c, 0xa_0008, 0x6_0004, 0x2_0000,
    );
    let sorted = _mm512_permutexvar_epi16(order, _mm512_castps_si512(words));
    [_mm512_castsi512_si256(sorted), _mm512_extracti64x4_epi64::<1>(sorted)]
}

/// Elements of both in turn: those of the lower halves of `low` and `high`, then those of the upper ones.
///
/// # Safety
/// The machine has AVX-512 BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn interleave(low: __m512i, high: __m512i) -> [__m512i; 2] {
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    // Word i takes element i of the one and 32 + i of both.
    let order = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(0x1_0001));
    let order = _mm512_add_epi32(order, _mm512_set1_epi32(0x20 << 16));
    let upper = _mm512_add_epi32(order, _mm512_set1_epi32(0x10_0010));
    [_mm512_permutex2var_epi16(low, order, high), _mm512_permutex2var_epi16(low, upper, high)]
}

/// Rounds to bf16, denormals to zero.
///
/// # Safety
/// The machine has AVX-512 BF16.
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn narrow(values: __m512) -> __m256i {
    let narrow: __m256i;
    // SAFETY: registers only; the caller promises the instruction.
    unsafe {
        asm!(
            "vcvtneps2bf16 {narrow:y}, {values}",
            narrow = lateout(zmm_reg) narrow,
            values = in(zmm_reg) values,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    narrow
}
