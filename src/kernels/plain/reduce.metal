// Sums and maxima along one axis: x [outer, axis, inner] -> y [outer, inner]. Each sum has one order.

struct ReduceSpec {
    uint outer;
    uint axis;
    uint inner;
    // The maximum instead of the sum.
    uint maximum;
};

// The larger of the two; NaN if either is, so that a diverging run shows.
inline float larger(float a, float b) {
    return a > b || is_nan(a) ? a : b;
}

inline float combine(float a, float b, constant ReduceSpec& spec) {
    return spec.maximum != 0 ? larger(a, b) : a + b;
}

// One threadgroup for each row, where inner is 1.
kernel void reduce_rows(
    device const ELEMENT* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant ReduceSpec& spec [[buffer(2)]],
    uint row [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    x += ulong(row) * spec.axis;
    float value = spec.maximum != 0 ? -INFINITY : 0.0f;
    for (uint i = thread_index; i < spec.axis; i += threads) {
        value = combine(value, float(x[i]), spec);
    }
    if (spec.maximum != 0) {
        // The GPU's own maximum leaves NaN out.
        const float unknown = threadgroup_sum(is_nan(value) ? 1.0f : 0.0f, partial, thread_index, threads);
        value = threadgroup_max(is_nan(value) ? -INFINITY : value, partial, thread_index, threads);
        value = unknown > 0.0f ? NAN : value;
    } else {
        value = threadgroup_sum(value, partial, thread_index, threads);
    }
    if (thread_index == 0) {
        y[row] = ELEMENT(value);
    }
}

// One threadgroup for 32 columns of an outer index: [blocks of columns, outer]; each of its SIMD groups takes a share of
// the axis.
kernel void reduce_columns(
    device const ELEMENT* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant ReduceSpec& spec [[buffer(2)]],
    uint2 block [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    const uint column = block.x * 32 + thread_index % 32;
    float value = spec.maximum != 0 ? -INFINITY : 0.0f;
    if (column < spec.inner) {
        x += ulong(block.y) * spec.axis * spec.inner + column;
        for (uint i = thread_index / 32; i < spec.axis; i += threads.x / 32) {
            value = combine(value, float(x[ulong(i) * spec.inner]), spec);
        }
    }
    partial[thread_index] = value;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (thread_index < 32 && column < spec.inner) {
        for (uint i = thread_index + 32; i < threads.x; i += 32) {
            value = combine(value, partial[i], spec);
        }
        y[ulong(block.y) * spec.inner + column] = ELEMENT(value);
    }
}
