// Mixtures of experts: which experts a token goes to, and products whose rows go through the matrix of their expert.
// Pairs of a token and an expert are sorted by expert, then by token.

struct RouteSpec {
    uint tokens;
    uint experts;
    // Experts of one token.
    uint chosen;
    // The expert of each pair instead of its token.
    uint of_experts;
};

// y [rows, outputs] from x [rows, inputs].
struct ExpertSpec {
    uint rows;
    uint inputs;
    uint outputs;
    uint experts;
    // Weights are [experts, inputs, outputs] instead of [experts, outputs, inputs].
    uint transpose;
};

// One thread for each token: the experts of the highest scores, the first of equal ones before the others. What is not a
// number counts as the lowest.
kernel void choose_experts(
    device const ELEMENT* scores [[buffer(0)]],  // [tokens, experts]
    device uint* choices [[buffer(1)]],          // [tokens, chosen]
    constant RouteSpec& spec [[buffer(2)]],
    uint token [[thread_position_in_grid]]) {
    if (token >= spec.tokens) {
        return;
    }
    scores += ulong(token) * spec.experts;
    float last_score = INFINITY;
    uint last = IGNORED;
    for (uint choice = 0; choice < spec.chosen; choice++) {
        float best_score = -INFINITY;
        uint best = IGNORED;
        for (uint expert = 0; expert < spec.experts; expert++) {
            const float found = float(scores[expert]);
            const float score = is_nan(found) ? -INFINITY : found;
            const bool left = last == IGNORED || score < last_score || (score == last_score && expert > last);
            if (left && (best == IGNORED || score > best_score)) {
                best_score = score;
                best = expert;
            }
        }
        choices[ulong(token) * spec.chosen + choice] = best;
        last_score = best_score;
        last = best;
    }
}

// One threadgroup for each expert: where its pairs begin is how many pairs the experts before it have. Counts are exact
// in f32 up to 2^24 pairs.
kernel void sort_pairs(
    device const uint* choices [[buffer(0)]],  // [tokens, chosen]
    device uint* y [[buffer(1)]],              // [tokens * chosen]
    constant RouteSpec& spec [[buffer(2)]],
    uint expert [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    THREADGROUP_ARRAY(uint, counts, MAX_THREADS);
    // Threads have the tokens in their order.
    const uint share = (spec.tokens + threads - 1) / threads;
    const uint first = min(thread_index * share, spec.tokens) * spec.chosen;
    const uint end = min((thread_index + 1) * share, spec.tokens) * spec.chosen;
    uint before = 0;
    uint own = 0;
    for (uint pair = first; pair < end; pair++) {
        before += choices[pair] < expert ? 1 : 0;
        own += choices[pair] == expert ? 1 : 0;
    }
    counts[thread_index] = own;
    uint to = uint(threadgroup_sum(float(before), partial, thread_index, threads));
    for (uint i = 0; i < thread_index; i++) {
        to += counts[i];
    }
    for (uint pair = first; pair < end; pair++) {
        if (choices[pair] == expert) {
            y[to] = spec.of_experts != 0 ? expert : pair / spec.chosen;
            to++;
        }
    }
}

// Rows of a factor from `first` up to `end`, and zeros around them.
struct ExpertRows {
    Factor<ELEMENT> all;
    uint first;
    uint end;
    bool across;

    float at(uint outer, uint inner) const {
        return outer >= first && outer < end ? all.at(outer, inner) : 0.0f;
    }

    bool counts(uint) const {
        return true;
    }
};

struct ToExpertRows {
    device ELEMENT* y;
    uint first;
    uint end;
    uint outputs;

    void write(uint row, uint column, float sum) const {
        if (row >= first && row < end && column < outputs) {
            y[ulong(row) * outputs + column] = ELEMENT(sum);
        }
    }
};

// One threadgroup for each tile: [tiles of outputs, tiles of rows]. A tile is as many products as it has experts. A row
// without an expert of that number is zero.
kernel void expert_linear(
    device const ELEMENT* x [[buffer(0)]],       // [rows, inputs]
    device const ELEMENT* weight [[buffer(1)]],
    device const uint* ids [[buffer(2)]],        // [rows], ascending
    device ELEMENT* y [[buffer(3)]],             // [rows, outputs]
    constant ExpertSpec& spec [[buffer(4)]],
    uint2 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    const uint2 first = uint2(tile.y * TILE_ROWS(4), tile.x * TILE_ROWS(4));
    const bool across = spec.transpose != 0;
    const uint end = min(first.x + TILE_ROWS(4), spec.rows);
    for (uint row = first.x; row < end;) {
        const uint expert = ids[row];
        uint next = row + 1;
        while (next < end && ids[next] == expert) {
            next++;
        }
        simdgroup_float8x8 sums[16];
        clear<16>(sums);
        if (expert < spec.experts) {
            device const ELEMENT* matrix = weight + ulong(expert) * spec.inputs * spec.outputs;
            const ExpertRows left = {{x, spec.rows, spec.inputs, spec.inputs, false}, row, next, false};
            const Factor<ELEMENT> right = {matrix, spec.outputs, spec.inputs, across ? spec.outputs : spec.inputs, across};
            multiply<4>(left, right, first, uint2(0, spec.inputs), staged, sums, thread_index);
        }
        const ToExpertRows to = {y, row, next, spec.outputs};
        unload<4>(sums, first, staged, to, thread_index);
        // The next expert's tiles overwrite what other SIMD groups still unload.
        threadgroup_barrier(mem_flags::mem_threadgroup);
        row = next;
    }
}

// The first of ascending ids that is not below `id`.
inline uint lower_bound(device const uint* ids, uint count, uint id) {
    uint low = 0;
    uint high = count;
    while (low < high) {
        const uint middle = low + (high - low) / 2;
        if (ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct ToExpertWeight {
    device ELEMENT* dweight;
    constant ExpertSpec& spec;

    void write(uint row, uint column, float sum) const {
        if (row < spec.outputs && column < spec.inputs) {
            dweight[ulong(row) * spec.inputs + column] = ELEMENT(sum);
        }
    }
};

// One threadgroup for each tile: [tiles of inputs, tiles of outputs, experts]. An expert without rows has zeros.
kernel void expert_weight_gradient(
    device const ELEMENT* dy [[buffer(0)]],    // [rows, outputs]
    device const ELEMENT* x [[buffer(1)]],     // [rows, inputs]
    device const uint* ids [[buffer(2)]],      // [rows], ascending
    device ELEMENT* dweight [[buffer(3)]],     // [experts, outputs, inputs]
    constant ExpertSpec& spec [[buffer(4)]],
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    const uint2 first = uint2(tile.y * TILE_ROWS(4), tile.x * TILE_ROWS(4));
    const uint2 rows = uint2(lower_bound(ids, spec.rows, tile.z), lower_bound(ids, spec.rows, tile.z + 1));
    const Factor<ELEMENT> left = {dy, spec.outputs, rows.y, spec.outputs, true};
    const Factor<ELEMENT> right = {x, spec.inputs, rows.y, spec.inputs, true};
    simdgroup_float8x8 sums[16];
    clear<16>(sums);
    multiply<4>(left, right, first, rows, staged, sums, thread_index);
    const ToExpertWeight to = {dweight + ulong(tile.z) * spec.outputs * spec.inputs, spec};
    unload<4>(sums, first, staged, to, thread_index);
}
