// Attention of a few queries over cached keys and values, for decoding. Each of four SIMD groups takes every fourth key,
// with an online softmax of its own; their sums are joined at the end. A lane has every 32nd element of the head.

#define CACHE_GROUPS 4
#define LANE_VALUES ((HEAD_DIM + 31) / 32)

// Query i stands at position start + i, and sees keys up to its own.
struct CachedSpec {
    uint seq;
    uint heads;
    uint kv_heads;
    uint capacity;
    // Keys that a query sees at most, its own the last of them.
    uint window;
    float scale;
    // Scaled scores become cap * tanh(score / cap); 0 for none.
    float soft_cap;
};

// One threadgroup of 128 threads for each head of a query: [heads, seq].
kernel void cached_attention(
    device const ELEMENT* q [[buffer(0)]],       // [seq, heads * HEAD_DIM]
    device const ELEMENT* keys [[buffer(1)]],    // [capacity, kv_heads * HEAD_DIM]
    device const ELEMENT* values [[buffer(2)]],  // as keys
    device const uint* start [[buffer(3)]],      // [1]
    device ELEMENT* out [[buffer(4)]],           // as q
    constant CachedSpec& spec [[buffer(5)]],
    uint2 place [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, 32 * CACHE_GROUPS);
    THREADGROUP_ARRAY(float, largests, CACHE_GROUPS);
    THREADGROUP_ARRAY(float, totals, CACHE_GROUPS);
    THREADGROUP_ARRAY(float, joined, CACHE_GROUPS * HEAD_DIM);
    const uint lane = thread_index % 32;
    const uint group = thread_index / 32;
    const uint kv_head = place.x / (spec.heads / spec.kv_heads);
    const ulong own = (ulong(place.y) * spec.heads + place.x) * HEAD_DIM;
    const uint position = min(start[0], spec.capacity - spec.seq) + place.y;
    float query[LANE_VALUES];
    float sums[LANE_VALUES];
    UNROLL for (uint i = 0; i < LANE_VALUES; i++) {
        query[i] = lane + 32 * i < HEAD_DIM ? float(q[own + lane + 32 * i]) : 0.0f;
        sums[i] = 0.0f;
    }
    float largest = MASKED;
    float total = 0.0f;
    for (uint key = (position < spec.window ? 0 : position + 1 - spec.window) + group; key <= position; key += CACHE_GROUPS) {
        const ulong row = (ulong(key) * spec.kv_heads + kv_head) * HEAD_DIM;
        float score = 0.0f;
        UNROLL for (uint i = 0; i < LANE_VALUES; i++) {
            const uint column = lane + 32 * i;
            score += column < HEAD_DIM ? query[i] * float(keys[row + column]) : 0.0f;
        }
        score = simdgroup_total(score, partial, thread_index) * spec.scale;
        // The next key's score takes this one's place.
        simdgroup_barrier(mem_flags::mem_threadgroup);
        score = spec.soft_cap > 0.0f ? spec.soft_cap * precise::tanh(score / spec.soft_cap) : score;
        const float before = largest;
        largest = max(largest, score);
        const float factor = precise::exp(before - largest);
        const float weight = precise::exp(score - largest);
        total = total * factor + weight;
        UNROLL for (uint i = 0; i < LANE_VALUES; i++) {
            const uint column = lane + 32 * i;
            sums[i] = sums[i] * factor + (column < HEAD_DIM ? weight * float(values[row + column]) : 0.0f);
        }
    }
    UNROLL for (uint i = 0; i < LANE_VALUES; i++) {
        if (lane + 32 * i < HEAD_DIM) {
            joined[group * HEAD_DIM + lane + 32 * i] = sums[i];
        }
    }
    if (lane == 0) {
        largests[group] = largest;
        totals[group] = total;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < CACHE_GROUPS; i++) {
        largest = max(largest, largests[i]);
    }
    total = 0.0f;
    for (uint i = 0; i < CACHE_GROUPS; i++) {
        total += totals[i] * precise::exp(largests[i] - largest);
    }
    for (uint column = thread_index; column < HEAD_DIM; column += 32 * CACHE_GROUPS) {
        float sum = 0.0f;
        for (uint i = 0; i < CACHE_GROUPS; i++) {
            sum += joined[i * HEAD_DIM + column] * precise::exp(largests[i] - largest);
        }
        out[own + column] = ELEMENT(sum / total);
    }
}
