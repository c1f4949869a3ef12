// Causal grouped-query attention in tiles, with an online softmax (Dao 2023, arXiv:2307.08691). A threadgroup of four
// SIMD groups takes 32 queries of a head, eight for each; it goes along the keys they may see. A SIMD group holds its
// queries and their sums as matrices of 8 x 8; keys and values pass through threadgroup memory in f32.

#define HEAD_BLOCKS ((HEAD_DIM + 7) / 8)
// Floats between rows of what is staged.
#define HEAD_STRIDE (8 * HEAD_BLOCKS + 4)
// Rows that are staged at once: keys, or queries for the gradient of keys. Fewer of wide heads, for 32 KB.
#if HEAD_DIM <= 64
#define STAGED_ROWS 32
#elif HEAD_DIM <= 128
#define STAGED_ROWS 16
#else
#define STAGED_ROWS 8
#endif
#define SCORE_STRIDE (STAGED_ROWS + 4)
#define SCORE_BLOCKS (STAGED_ROWS / 8)
// Rows of a threadgroup, and of one of its SIMD groups.
#define OWN_ROWS 32
#define SIMD_ROWS 8
// Score of a key that the query does not see, and a number below every other score.
#define MASKED (-1e30f)
#define LOWEST (-1e20f)

// Activations are [batch * seq, heads * HEAD_DIM], those of keys and values [batch * seq, kv_heads * HEAD_DIM].
struct AttentionSpec {
    uint seq;
    uint heads;
    uint kv_heads;
    // Keys that a query sees at most, its own the last of them.
    uint window;
    float scale;
    // Scaled scores become cap * tanh(score / cap); 0 for none.
    float soft_cap;
};

// Whether a query sees a key; both are positions within a row of the batch.
inline bool sees(uint query, uint key, device const uint* segments, constant AttentionSpec& spec) {
    return query < spec.seq && key <= query && query - key < spec.window && segments[query] == segments[key];
}

// One head of a tensor, from the first position of a row of the batch on.
template <typename T>
struct Head {
    T values;
    ulong stride;
    uint seq;
};

template <typename T>
inline Head<device T*> head_of(device T* values, uint batch, uint head, uint heads, constant AttentionSpec& spec) {
    const ulong first = (ulong(batch) * spec.seq * heads + head) * HEAD_DIM;
    return Head<device T*>{values + first, ulong(heads) * HEAD_DIM, spec.seq};
}

// One element, and 0 beyond the ends.
inline float element(thread const Head<device const ELEMENT*>& head, uint row, uint column) {
    return row < head.seq && column < HEAD_DIM ? float(head.values[row * head.stride + column]) : 0.0f;
}

// Stages STAGED_ROWS rows from `first` on.
inline void stage_head(thread const Head<device const ELEMENT*>& head, uint first, threadgroup float* staged,
                       uint thread_index) {
    const uint width = 8 * HEAD_BLOCKS;
    for (uint i = thread_index; i < STAGED_ROWS * width; i += 4 * OWN_ROWS) {
        staged[i / width * HEAD_STRIDE + i % width] = element(head, first + i / width, i % width);
    }
}

// Rows first.. of a SIMD group as matrices, by way of 64 floats of its own.
inline void load_head(thread const Head<device const ELEMENT*>& head, uint first, threadgroup float* own, uint lane,
                      thread simdgroup_float8x8* rows) {
    UNROLL for (uint block = 0; block < HEAD_BLOCKS; block++) {
        own[lane] = element(head, first + lane / 8, 8 * block + lane % 8);
        own[lane + 32] = element(head, first + 4 + lane / 8, 8 * block + lane % 8);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_load(rows[block], own, 8);
        // The next block overwrites this one.
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}

inline void store_head(thread const simdgroup_float8x8* rows, thread const Head<device ELEMENT*>& head, uint first,
                       threadgroup float* own, uint lane) {
    UNROLL for (uint block = 0; block < HEAD_BLOCKS; block++) {
        simdgroup_store(rows[block], own, 8);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = lane; i < 64; i += 32) {
            const uint row = first + i / 8;
            const uint column = 8 * block + i % 8;
            if (row < head.seq && column < HEAD_DIM) {
                head.values[row * head.stride + column] = ELEMENT(own[i]);
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}

inline void clear_head(thread simdgroup_float8x8* rows) {
    UNROLL for (uint block = 0; block < HEAD_BLOCKS; block++) {
        rows[block] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
}

// scores [8, STAGED_ROWS] = rows staged^T
inline void score(thread const simdgroup_float8x8* rows, threadgroup const float* staged, threadgroup float* scores) {
    for (uint j = 0; j < SCORE_BLOCKS; j++) {
        simdgroup_float8x8 sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        UNROLL for (uint block = 0; block < HEAD_BLOCKS; block++) {
            simdgroup_float8x8 column;
            simdgroup_load(column, staged + 8 * j * HEAD_STRIDE + 8 * block, HEAD_STRIDE, ulong2(0, 0), true);
            simdgroup_multiply_accumulate(sum, rows[block], column, sum);
        }
        simdgroup_store(sum, scores + 8 * j, SCORE_STRIDE);
    }
}

// sums += weights [8, STAGED_ROWS] staged
inline void add_weighted(thread simdgroup_float8x8* sums, threadgroup const float* weights,
                         threadgroup const float* staged) {
    for (uint j = 0; j < SCORE_BLOCKS; j++) {
        simdgroup_float8x8 weight;
        simdgroup_load(weight, weights + 8 * j, SCORE_STRIDE);
        UNROLL for (uint block = 0; block < HEAD_BLOCKS; block++) {
            simdgroup_float8x8 rows;
            simdgroup_load(rows, staged + 8 * j * HEAD_STRIDE + 8 * block, HEAD_STRIDE);
            simdgroup_multiply_accumulate(sums[block], weight, rows, sums[block]);
        }
    }
}

// Multiplies each of eight rows by a factor that its four lanes know, by way of 64 floats of the SIMD group's own.
inline void rescale(thread simdgroup_float8x8* rows, float factor, threadgroup float* own, uint lane) {
    const uint row = lane / 4;
    const uint column = lane % 4 * 2;
    own[row * 8 + column] = row == column ? factor : 0.0f;
    own[row * 8 + column + 1] = row == column + 1 ? factor : 0.0f;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_float8x8 diagonal;
    simdgroup_load(diagonal, own, 8);
    UNROLL for (uint block = 0; block < HEAD_BLOCKS; block++) {
        simdgroup_multiply(rows[block], diagonal, rows[block]);
    }
}

// A raw score, scaled and capped.
inline float capped(float score, constant AttentionSpec& spec) {
    score *= spec.scale;
    return spec.soft_cap > 0.0f ? spec.soft_cap * precise::tanh(score / spec.soft_cap) : score;
}

// First key that one of the queries from `first` on may see, in whole tiles of keys.
inline uint first_key(uint first, constant AttentionSpec& spec) {
    const uint key = first < spec.window ? 0 : first + 1 - spec.window;
    return key / STAGED_ROWS * STAGED_ROWS;
}

// A row's largest score so far, and this lane's share of the sum of exponentials. Four lanes have a row.
struct Softmax {
    float largest;
    float total;
};

// Turns a row of scores into exponentials; returns what sums so far are to be multiplied by.
inline float advance(thread Softmax& softmax, uint query, uint keys, uint lane, threadgroup float* scores,
                     device const uint* segments, constant AttentionSpec& spec) {
    float largest = softmax.largest;
    for (uint i = lane % 4; i < STAGED_ROWS; i += 4) {
        const bool seen = sees(query, keys + i, segments, spec);
        scores[i] = seen ? capped(scores[i], spec) : MASKED;
        largest = max(largest, scores[i]);
    }
    largest = max(largest, simd_shuffle_xor(largest, 1));
    largest = max(largest, simd_shuffle_xor(largest, 2));
    const float factor = precise::exp(softmax.largest - largest);
    float total = softmax.total * factor;
    for (uint i = lane % 4; i < STAGED_ROWS; i += 4) {
        scores[i] = scores[i] > LOWEST ? precise::exp(scores[i] - largest) : 0.0f;
        total += scores[i];
    }
    softmax = Softmax{largest, total};
    return factor;
}

// One threadgroup of 128 threads for 32 queries of a head: [tiles of queries, heads, batch].
kernel void attention(
    device const ELEMENT* q [[buffer(0)]],
    device const ELEMENT* k [[buffer(1)]],
    device const ELEMENT* v [[buffer(2)]],
    device const uint* segments [[buffer(3)]],  // [batch * seq]
    device ELEMENT* out [[buffer(4)]],
    device float* log_sum_exp [[buffer(5)]],    // [batch * seq, heads], of the scaled and capped scores
    constant AttentionSpec& spec [[buffer(6)]],
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, STAGED_ROWS * HEAD_STRIDE);
    THREADGROUP_ARRAY(float, scores, OWN_ROWS * SCORE_STRIDE);
    THREADGROUP_ARRAY(float, diagonals, 4 * 64);
    const uint lane = thread_index % 32;
    const uint first = tile.x * OWN_ROWS;
    const uint own_first = first + thread_index / 32 * SIMD_ROWS;
    const uint query = own_first + lane / 4;
    const uint kv_head = tile.y / (spec.heads / spec.kv_heads);
    threadgroup float* own_scores = scores + thread_index / 32 * SIMD_ROWS * SCORE_STRIDE;
    threadgroup float* own_diagonal = diagonals + thread_index / 32 * 64;
    device const uint* own_segments = segments + ulong(tile.z) * spec.seq;
    const Head<device const ELEMENT*> keys = head_of(k, tile.z, kv_head, spec.kv_heads, spec);
    const Head<device const ELEMENT*> values = head_of(v, tile.z, kv_head, spec.kv_heads, spec);

    simdgroup_float8x8 queries[HEAD_BLOCKS];
    simdgroup_float8x8 sums[HEAD_BLOCKS];
    load_head(head_of(q, tile.z, tile.y, spec.heads, spec), own_first, own_scores, lane, queries);
    clear_head(sums);
    Softmax softmax = {MASKED, 0.0f};
    for (uint key = first_key(first, spec); key < min(first + OWN_ROWS, spec.seq); key += STAGED_ROWS) {
        stage_head(keys, key, staged, thread_index);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        score(queries, staged, own_scores);
        // Values take the keys' place.
        threadgroup_barrier(mem_flags::mem_threadgroup);
        stage_head(values, key, staged, thread_index);
        threadgroup float* row = own_scores + lane / 4 * SCORE_STRIDE;
        const float factor = advance(softmax, query, key, lane, row, own_segments, spec);
        rescale(sums, factor, own_diagonal, lane);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        add_weighted(sums, own_scores, staged);
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    float total = softmax.total;
    total += simd_shuffle_xor(total, 1);
    total += simd_shuffle_xor(total, 2);
    // Queries beyond the end see nothing.
    rescale(sums, total > 0.0f ? 1.0f / total : 0.0f, own_diagonal, lane);
    store_head(sums, head_of(out, tile.z, tile.y, spec.heads, spec), own_first, own_scores, lane);
    if (lane % 4 == 0 && query < spec.seq) {
        const ulong token = ulong(tile.z) * spec.seq + query;
        log_sum_exp[token * spec.heads + tile.y] = softmax.largest + precise::log(total);
    }
}
