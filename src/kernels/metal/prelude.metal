// What all kernels share. The host puts two lines before it:
//   #define ELEMENT float      the type of activations: float, half or bfloat
//   #define HEAD_DIM 64        the width of an attention head
// Sums are f32 whatever ELEMENT is.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>

using namespace metal;

#ifdef __METAL_VERSION__
#define THREADGROUP_ARRAY(type, name, count) threadgroup type name[count]
// Arrays of matrices have to stay in registers.
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL
#endif

// An id that names no row, and a target that is not learned.
#define IGNORED 0xffffffffu
// Threads of the largest threadgroup that reduces; threadgroups hold whole SIMD groups of 32.
#define MAX_THREADS 256

// GPUs without simd_sum (families before Apple7) add up in threadgroup memory.
constant bool tree_reduction [[function_constant(0)]];

// The sum of all threads' values, the same bits for each of them. `partial` holds MAX_THREADS.
inline float threadgroup_sum(float value, threadgroup float* partial, uint thread_index, uint threads) {
    if (tree_reduction) {
        partial[thread_index] = value;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint width = threads; width > 1;) {
            const uint upper = (width + 1) / 2;
            if (thread_index + upper < width) {
                partial[thread_index] += partial[thread_index + upper];
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            width = upper;
        }
    } else {
        const float sum = simd_sum(value);
        if (thread_index % 32 == 0) {
            partial[thread_index / 32] = sum;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint lane = thread_index % 32;
        value = simd_sum(lane < threads / 32 ? partial[lane] : 0.0f);
    }
    const float total = tree_reduction ? partial[0] : value;
    // The next reduction may write `partial` at once.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return total;
}

// The largest of all threads' values, for each of them. `partial` holds MAX_THREADS.
inline float threadgroup_max(float value, threadgroup float* partial, uint thread_index, uint threads) {
    if (tree_reduction) {
        partial[thread_index] = value;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint width = threads; width > 1;) {
            const uint upper = (width + 1) / 2;
            if (thread_index + upper < width) {
                partial[thread_index] = max(partial[thread_index], partial[thread_index + upper]);
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            width = upper;
        }
    } else {
        const float largest = simd_max(value);
        if (thread_index % 32 == 0) {
            partial[thread_index / 32] = largest;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint lane = thread_index % 32;
        value = simd_max(lane < threads / 32 ? partial[lane] : partial[0]);
    }
    const float largest = tree_reduction ? partial[0] : value;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return largest;
}

// The sum of the values of a SIMD group, for each of its threads. `partial` holds a float for every thread.
inline float simdgroup_total(float value, threadgroup float* partial, uint thread_index) {
    if (!tree_reduction) {
        return simd_sum(value);
    }
    partial[thread_index] = value;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint width = 16; width > 0; width /= 2) {
        if (thread_index % 32 < width) {
            partial[thread_index] += partial[thread_index + width];
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    return partial[thread_index / 32 * 32];
}

// Whether a number is NaN, for compilers that assume there is none.
inline bool is_nan(float value) {
    return (as_type<uint>(value) & 0x7fffffffu) > 0x7f800000u;
}
