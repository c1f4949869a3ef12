// The gradient of attention, from the log-sum-exp: probabilities are computed again. One kernel goes along the keys of
// some queries, the other along the queries of some keys, of all heads that share them: nothing is added atomically.

// rowsum(dout * out) of each head. One SIMD group for each: [tokens * heads / 4] threadgroups of four.
kernel void attention_delta(
    device const ELEMENT* dout [[buffer(0)]],
    device const ELEMENT* out [[buffer(1)]],
    device float* delta [[buffer(2)]],  // [tokens, heads]
    constant ElementwiseSpec& spec [[buffer(3)]],  // tokens * heads
    uint threadgroup_index [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, 4 * 32);
    const ulong row = ulong(threadgroup_index) * 4 + thread_index / 32;
    float sum = 0.0f;
    if (row < spec.elements) {
        for (uint i = thread_index % 32; i < HEAD_DIM; i += 32) {
            sum += float(dout[row * HEAD_DIM + i]) * float(out[row * HEAD_DIM + i]);
        }
    }
    sum = simdgroup_total(sum, partial, thread_index);
    if (row < spec.elements && thread_index % 32 == 0) {
        delta[row] = sum;
    }
}

// What belongs to the queries of a head: [seq] numbers of each, `heads` apart.
struct Statistics {
    device const float* log_sum_exp;
    device const float* delta;
    device const uint* segments;
};

inline Statistics statistics_of(device const float* log_sum_exp, device const float* delta, device const uint* segments,
                                uint batch, uint head, constant AttentionSpec& spec) {
    const ulong first = ulong(batch) * spec.seq;
    return Statistics{log_sum_exp + first * spec.heads + head, delta + first * spec.heads + head, segments + first};
}

// A raw score becomes a probability, and what its probability's gradient is becomes the raw score's.
inline void differentiate(uint query, uint key, threadgroup float& score, threadgroup float& gradient,
                          thread const Statistics& statistics, constant AttentionSpec& spec) {
    if (!sees(query, key, statistics.segments, spec)) {
        score = 0.0f;
        gradient = 0.0f;
        return;
    }
    const float logit = capped(score, spec);
    const float ratio = spec.soft_cap > 0.0f ? logit / spec.soft_cap : 0.0f;
    const ulong at = ulong(query) * spec.heads;
    const float probability = precise::exp(logit - statistics.log_sum_exp[at]);
    score = probability;
    gradient = probability * (gradient - statistics.delta[at]) * (1.0f - ratio * ratio) * spec.scale;
}

// One threadgroup of 128 threads for 32 queries of a head: [tiles of queries, heads, batch].
kernel void attention_query_gradient(
    device const ELEMENT* q [[buffer(0)]],
    device const ELEMENT* k [[buffer(1)]],
    device const ELEMENT* v [[buffer(2)]],
    device const uint* segments [[buffer(3)]],      // [batch * seq]
    device const float* log_sum_exp [[buffer(4)]],  // [batch * seq, heads]
    device const float* delta [[buffer(5)]],        // [batch * seq, heads]
    device const ELEMENT* dout [[buffer(6)]],
    device ELEMENT* dq [[buffer(7)]],
    constant AttentionSpec& spec [[buffer(8)]],
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged_keys, STAGED_ROWS * HEAD_STRIDE);
    THREADGROUP_ARRAY(float, staged_values, STAGED_ROWS * HEAD_STRIDE);
    THREADGROUP_ARRAY(float, scores, OWN_ROWS * SCORE_STRIDE);
    THREADGROUP_ARRAY(float, gradients, OWN_ROWS * SCORE_STRIDE);
    const uint lane = thread_index % 32;
    const uint first = tile.x * OWN_ROWS;
    const uint own_first = first + thread_index / 32 * SIMD_ROWS;
    const uint kv_head = tile.y / (spec.heads / spec.kv_heads);
    threadgroup float* own_scores = scores + thread_index / 32 * SIMD_ROWS * SCORE_STRIDE;
    threadgroup float* own_gradients = gradients + thread_index / 32 * SIMD_ROWS * SCORE_STRIDE;
    const Head<device const ELEMENT*> keys = head_of(k, tile.z, kv_head, spec.kv_heads, spec);
    const Head<device const ELEMENT*> values = head_of(v, tile.z, kv_head, spec.kv_heads, spec);
    const Statistics statistics = statistics_of(log_sum_exp, delta, segments, tile.z, tile.y, spec);

    simdgroup_float8x8 queries[HEAD_BLOCKS];
    simdgroup_float8x8 douts[HEAD_BLOCKS];
    simdgroup_float8x8 sums[HEAD_BLOCKS];
    load_head(head_of(q, tile.z, tile.y, spec.heads, spec), own_first, own_scores, lane, queries);
    load_head(head_of(dout, tile.z, tile.y, spec.heads, spec), own_first, own_scores, lane, douts);
    clear_head(sums);
    for (uint key = first_key(first, spec); key < min(first + OWN_ROWS, spec.seq); key += STAGED_ROWS) {
        stage_head(keys, key, staged_keys, thread_index);
        stage_head(values, key, staged_values, thread_index);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        score(queries, staged_keys, own_scores);
        score(douts, staged_values, own_gradients);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = lane % 4; i < STAGED_ROWS; i += 4) {
            const uint at = lane / 4 * SCORE_STRIDE + i;
            differentiate(own_first + lane / 4, key + i, own_scores[at], own_gradients[at], statistics, spec);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        add_weighted(sums, own_gradients, staged_keys);
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    store_head(sums, head_of(dq, tile.z, tile.y, spec.heads, spec), own_first, own_scores, lane);
}

// One threadgroup of 128 threads for 32 keys of a kv head: [tiles of keys, kv heads, batch].
kernel void attention_key_gradient(
    device const ELEMENT* q [[buffer(0)]],
    device const ELEMENT* k [[buffer(1)]],
    device const ELEMENT* v [[buffer(2)]],
    device const uint* segments [[buffer(3)]],      // [batch * seq]
    device const float* log_sum_exp [[buffer(4)]],  // [batch * seq, heads]
    device const float* delta [[buffer(5)]],        // [batch * seq, heads]
    device const ELEMENT* dout [[buffer(6)]],
    device ELEMENT* dk [[buffer(7)]],
    device ELEMENT* dv [[buffer(8)]],
    constant AttentionSpec& spec [[buffer(9)]],
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged_queries, STAGED_ROWS * HEAD_STRIDE);
    THREADGROUP_ARRAY(float, staged_douts, STAGED_ROWS * HEAD_STRIDE);
    THREADGROUP_ARRAY(float, scores, OWN_ROWS * SCORE_STRIDE);
    THREADGROUP_ARRAY(float, gradients, OWN_ROWS * SCORE_STRIDE);
    const uint lane = thread_index % 32;
    const uint first = tile.x * OWN_ROWS;
    const uint own_first = first + thread_index / 32 * SIMD_ROWS;
    threadgroup float* own_scores = scores + thread_index / 32 * SIMD_ROWS * SCORE_STRIDE;
    threadgroup float* own_gradients = gradients + thread_index / 32 * SIMD_ROWS * SCORE_STRIDE;
    simdgroup_float8x8 keys[HEAD_BLOCKS];
    simdgroup_float8x8 values[HEAD_BLOCKS];
    simdgroup_float8x8 key_sums[HEAD_BLOCKS];
    simdgroup_float8x8 value_sums[HEAD_BLOCKS];
    load_head(head_of(k, tile.z, tile.y, spec.kv_heads, spec), own_first, own_scores, lane, keys);
    load_head(head_of(v, tile.z, tile.y, spec.kv_heads, spec), own_first, own_scores, lane, values);
    clear_head(key_sums);
    clear_head(value_sums);
    const uint group = spec.heads / spec.kv_heads;
    // The last of the keys is seen by `window` queries from its own on.
    const uint last = min(first + OWN_ROWS, spec.seq) - 1;
    const uint end = spec.seq - last > spec.window ? last + spec.window : spec.seq;
    for (uint head = tile.y * group; head < (tile.y + 1) * group; head++) {
        const Statistics statistics = statistics_of(log_sum_exp, delta, segments, tile.z, head, spec);
        for (uint query = first / STAGED_ROWS * STAGED_ROWS; query < end; query += STAGED_ROWS) {
            stage_head(head_of(q, tile.z, head, spec.heads, spec), query, staged_queries, thread_index);
            stage_head(head_of(dout, tile.z, head, spec.heads, spec), query, staged_douts, thread_index);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            score(keys, staged_queries, own_scores);
            score(values, staged_douts, own_gradients);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = lane % 4; i < STAGED_ROWS; i += 4) {
                const uint at = lane / 4 * SCORE_STRIDE + i;
                differentiate(query + i, own_first + lane / 4, own_scores[at], own_gradients[at], statistics, spec);
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            add_weighted(value_sums, own_scores, staged_douts);
            add_weighted(key_sums, own_gradients, staged_queries);
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
    store_head(key_sums, head_of(dk, tile.z, tile.y, spec.kv_heads, spec), own_first, own_scores, lane);
    store_head(value_sums, head_of(dv, tile.z, tile.y, spec.kv_heads, spec), own_first, own_scores, lane);
}
