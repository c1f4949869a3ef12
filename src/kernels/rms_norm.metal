// Root mean square normalization and its gradient; rms_norm.rs has the formulas.

struct RmsNormSpec {
    uint rows;
    uint width;
    float epsilon;
};

inline float inverse_rms(device const ELEMENT* x, constant RmsNormSpec& spec, threadgroup float* partial,
                         uint thread_index, uint threads) {
    float squares = 0.0f;
    for (uint i = thread_index; i < spec.width; i += threads) {
        squares += float(x[i]) * float(x[i]);
    }
    const float mean = threadgroup_sum(squares, partial, thread_index, threads) / float(spec.width);
    return precise::rsqrt(mean + spec.epsilon);
}

// One threadgroup for each row.
kernel void rms_norm(
    device const ELEMENT* x [[buffer(0)]],       // [rows, width]
    device const ELEMENT* weight [[buffer(1)]],  // [width]
    device ELEMENT* y [[buffer(2)]],             // [rows, width]
    constant RmsNormSpec& spec [[buffer(3)]],
    uint row [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    x += ulong(row) * spec.width;
    y += ulong(row) * spec.width;
    const float inverse = inverse_rms(x, spec, partial, thread_index, threads);
    for (uint i = thread_index; i < spec.width; i += threads) {
        y[i] = ELEMENT(float(x[i]) * inverse * float(weight[i]));
    }
}

// One threadgroup for each row. `inverse` is what the weight's gradient needs.
kernel void rms_norm_gradient(
    device const ELEMENT* x [[buffer(0)]],       // [rows, width]
    device const ELEMENT* weight [[buffer(1)]],  // [width]
    device const ELEMENT* dy [[buffer(2)]],      // [rows, width]
    device ELEMENT* dx [[buffer(3)]],            // [rows, width]
    device float* inverse [[buffer(4)]],         // [rows]
    constant RmsNormSpec& spec [[buffer(5)]],
    uint row [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    x += ulong(row) * spec.width;
    dy += ulong(row) * spec.width;
    dx += ulong(row) * spec.width;
    const float scale = inverse_rms(x, spec, partial, thread_index, threads);
    float along = 0.0f;
    for (uint i = thread_index; i < spec.width; i += threads) {
        along += float(x[i]) * float(dy[i]) * float(weight[i]);
    }
    along = threadgroup_sum(along, partial, thread_index, threads) * scale * scale / float(spec.width);
    for (uint i = thread_index; i < spec.width; i += threads) {
        dx[i] = ELEMENT(scale * (float(dy[i]) * float(weight[i]) - along * float(x[i])));
    }
    if (thread_index == 0) {
        inverse[row] = scale;
    }
}

// One threadgroup for 32 columns; each of its SIMD groups takes a share of the rows.
kernel void rms_norm_weight_gradient(
    device const ELEMENT* x [[buffer(0)]],      // [rows, width]
    device const ELEMENT* dy [[buffer(1)]],     // [rows, width]
    device const float* inverse [[buffer(2)]],  // [rows]
    device ELEMENT* dweight [[buffer(3)]],      // [width]
    constant RmsNormSpec& spec [[buffer(4)]],
    uint block [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    const uint column = block * 32 + thread_index % 32;
    float sum = 0.0f;
    if (column < spec.width) {
        for (uint row = thread_index / 32; row < spec.rows; row += threads / 32) {
            const ulong at = ulong(row) * spec.width + column;
            sum += float(dy[at]) * (float(x[at]) * inverse[row]);
        }
    }
    partial[thread_index] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (thread_index < 32 && column < spec.width) {
        for (uint i = thread_index + 32; i < threads; i += 32) {
            sum += partial[i];
        }
        dweight[column] = ELEMENT(sum);
    }
}
