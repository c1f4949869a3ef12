// One AdamW update of all trained tensors; adamw.rs has the order of the arithmetic. `Chunk` is that of the squared norm.

struct AdamWSpec {
    // ln(beta1) and ln(beta2), and the complements of both, rounded from f64.
    float log_beta1;
    float log_beta2;
    float complement1;
    float complement2;
    float beta2;
    float epsilon;
    float weight_decay;
};

// 1 - e^x for x <= 0, without cancellation near 0: GPUs have no f64, and 1 - 0.999^1 has four digits in f32.
inline float one_minus_exp(float x) {
    if (x < -0.5f) {
        return 1.0f - precise::exp(x);
    }
    float sum = 1.0f;
    for (uint n = 9; n > 1; n--) {
        sum = 1.0f + sum * x / float(n);
    }
    return -x * sum;
}

// start + weight * (end - start), from whichever end is nearer, as PyTorch does.
inline float interpolate(float start, float end, float weight) {
    return weight < 0.5f ? fma(weight, end - start, start) : fma(weight - 1.0f, end - start, end);
}

// One threadgroup for each chunk.
kernel void adamw(
    device const ELEMENT* gradients [[buffer(0)]],
    device const Chunk* chunks [[buffer(1)]],
    device float* parameters [[buffer(2)]],
    device float* first_moments [[buffer(3)]],
    device float* second_moments [[buffer(4)]],
    device const float* learning_rate [[buffer(5)]],  // [1]
    device const float* number [[buffer(6)]],         // [1], counted from 1
    // [1], multiplies the gradient: clipping. Where it is NaN, nothing is updated.
    device const float* factor [[buffer(7)]],
    constant AdamWSpec& spec [[buffer(8)]],
    uint chunk [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    if (is_nan(factor[0])) {
        return;
    }
    const float decay = 1.0f - learning_rate[0] * spec.weight_decay;
    const float step_size = precise::divide(learning_rate[0], one_minus_exp(number[0] * spec.log_beta1));
    const float root_correction = precise::sqrt(one_minus_exp(number[0] * spec.log_beta2));
    for (uint i = thread_index; i < chunks[chunk].elements; i += threads) {
        const ulong at = chunks[chunk].state + i;
        const float g = float(gradients[chunks[chunk].gradient + i]) * factor[0];
        const float m = interpolate(first_moments[at], g, spec.complement1);
        const float v = fma(spec.complement2 * g, g, second_moments[at] * spec.beta2);
        const float denominator = precise::divide(precise::sqrt(v), root_correction) + spec.epsilon;
        parameters[at] = parameters[at] * decay - precise::divide(step_size * m, denominator);
        first_moments[at] = m;
        second_moments[at] = v;
    }
}
