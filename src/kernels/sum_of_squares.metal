// The squared norm of all gradients, in an order that no scheduling changes.

// A run of elements of one tensor: what one threadgroup takes.
struct Chunk {
    // First element of the gradient, from the start of the gradients' buffer.
    ulong gradient;
    // First element of the parameter and of its moments, which lie in buffers of the same layout.
    ulong state;
    uint elements;
    uint unused;
};

struct SumSpec {
    uint partials;
};

// One threadgroup for each chunk.
kernel void sum_of_squares(
    device const ELEMENT* gradients [[buffer(0)]],
    device const Chunk* chunks [[buffer(1)]],
    device float* partials [[buffer(2)]],  // [chunks]
    uint chunk [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    device const ELEMENT* gradient = gradients + chunks[chunk].gradient;
    float sum = 0.0f;
    for (uint i = thread_index; i < chunks[chunk].elements; i += threads) {
        sum += float(gradient[i]) * float(gradient[i]);
    }
    sum = threadgroup_sum(sum, partial, thread_index, threads);
    if (thread_index == 0) {
        partials[chunk] = sum;
    }
}

// One threadgroup.
kernel void sum_partials(
    device const float* partials [[buffer(0)]],
    device float* total [[buffer(1)]],  // [1]
    constant SumSpec& spec [[buffer(2)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    float sum = 0.0f;
    for (uint i = thread_index; i < spec.partials; i += threads) {
        sum += partials[i];
    }
    sum = threadgroup_sum(sum, partial, thread_index, threads);
    if (thread_index == 0) {
        total[0] = sum;
    }
}
