// Output projection and cross-entropy of a chunk of tokens, with its logits in memory: logits, then losses and the
// logits' gradient in their place, then the gradient of the hidden states. Tiles without a supervised token are skipped,
// and logits of ignored tokens are neither written nor read. The weight's gradient takes blocks of the vocabulary.

struct CrossEntropySpec {
    // Tokens of the chunk.
    uint tokens;
    // Length of a hidden state.
    uint width;
    uint vocab;
    // Words of the block, whose logits are [tokens, words], and its first one.
    uint words;
    uint first_word;
    // Whether the logits become their gradient.
    uint gradient;
    // Logits become cap * tanh(logit / cap); 0 for none.
    float soft_cap;
};

// Whether some of the tokens has a target.
inline bool any_supervised(device const uint* targets, uint first, uint count, constant CrossEntropySpec& spec) {
    bool found = false;
    for (uint token = first; token < min(first + count, spec.tokens); token++) {
        found = found || targets[token] < spec.vocab;
    }
    return found;
}

// A factor whose depth, or else whose rows, are tokens; those without a target are zeros.
template <typename T>
struct SupervisedFactor {
    Factor<T> all;
    device const uint* targets;
    constant CrossEntropySpec& spec;
    bool across;

    float at(uint outer, uint inner) const {
        const uint token = across ? inner : outer;
        return token < spec.tokens && targets[token] < spec.vocab ? all.at(outer, inner) : 0.0f;
    }

    bool counts(uint start) const {
        return !across || any_supervised(targets, start, TILE_DEPTH, spec);
    }
};

struct ToLogits {
    device float* logits;
    constant CrossEntropySpec& spec;

    void write(uint token, uint word, float logit) const {
        if (token < spec.tokens && word < spec.words) {
            const float cap = spec.soft_cap;
            logits[ulong(token) * spec.words + word] = cap > 0.0f ? cap * precise::tanh(logit / cap) : logit;
        }
    }
};

// One threadgroup for each tile: [tiles of words, tiles of tokens].
kernel void project_logits(
    device const ELEMENT* hidden [[buffer(0)]],  // [tokens, width]
    device const ELEMENT* weight [[buffer(1)]],  // [vocab, width]
    device const uint* targets [[buffer(2)]],    // [tokens]
    device float* logits [[buffer(3)]],          // [tokens, words]
    constant CrossEntropySpec& spec [[buffer(4)]],
    uint2 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    const uint2 first = uint2(tile.y * TILE_ROWS(4), tile.x * TILE_ROWS(4));
    if (!any_supervised(targets, first.x, TILE_ROWS(4), spec)) {
        return;
    }
    const Factor<ELEMENT> left = {hidden, spec.tokens, spec.width, spec.width, false};
    device const ELEMENT* block = weight + ulong(spec.first_word) * spec.width;
    const Factor<ELEMENT> right = {block, spec.words, spec.width, spec.width, false};
    simdgroup_float8x8 sums[16];
    clear<16>(sums);
    multiply<4>(left, right, first, uint2(0, spec.width), staged, sums, thread_index);
    const ToLogits to = {logits, spec};
    unload<4>(sums, first, staged, to, thread_index);
}

// The derivative of the soft cap at a capped logit.
inline float cap_slope(float capped, constant CrossEntropySpec& spec) {
    const float ratio = spec.soft_cap > 0.0f ? capped / spec.soft_cap : 0.0f;
    return 1.0f - ratio * ratio;
}

// One threadgroup for each token, over the whole vocabulary. The target's word is left out of the sum of exponentials, so
// that its probability minus one is known without cancellation.
kernel void cross_entropy(
    device float* logits [[buffer(0)]],         // [tokens, vocab]
    device const uint* targets [[buffer(1)]],   // [tokens]
    device const float* dloss [[buffer(2)]],    // [tokens]; read for the gradient only
    device float* loss [[buffer(3)]],           // [tokens]; 0 at ignored targets
    device float* log_sum_exp [[buffer(4)]],    // [tokens]; 0 at ignored targets
    constant CrossEntropySpec& spec [[buffer(5)]],
    uint token [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
    THREADGROUP_ARRAY(float, partial, MAX_THREADS);
    const uint target = targets[token];
    if (target >= spec.vocab) {
        if (thread_index == 0) {
            loss[token] = 0.0f;
            log_sum_exp[token] = 0.0f;
        }
        return;
    }
    logits += ulong(token) * spec.vocab;
    float largest = logits[target];
    for (uint word = thread_index; word < spec.vocab; word += threads) {
        largest = max(largest, logits[word]);
    }
    largest = threadgroup_max(largest, partial, thread_index, threads);
    float others = 0.0f;
    for (uint word = thread_index; word < spec.vocab; word += threads) {
        others += word == target ? 0.0f : precise::exp(logits[word] - largest);
    }
    others = threadgroup_sum(others, partial, thread_index, threads);
    const float margin = logits[target] - largest;
    const float sum = others + precise::exp(margin);
    if (thread_index == 0) {
        loss[token] = precise::log(sum) - margin;
        log_sum_exp[token] = largest + precise::log(sum);
    }
    if (spec.gradient == 0) {
        return;
    }
    // Everyone has read the target's logit.
    threadgroup_barrier(mem_flags::mem_device);
    const float scale = dloss[token] / sum;
    for (uint word = thread_index; word < spec.vocab; word += threads) {
        const float logit = logits[word];
        const float slope = cap_slope(logit, spec);
        logits[word] = slope * scale * (word == target ? -others : precise::exp(logit - largest));
    }
}

struct ToHiddenGradient {
    device ELEMENT* gradient;
    constant CrossEntropySpec& spec;

    void write(uint token, uint column, float value) const {
        if (token < spec.tokens && column < spec.width) {
            gradient[ulong(token) * spec.width + column] = ELEMENT(value);
        }
    }
};

// One threadgroup for each tile: [tiles of the width, tiles of tokens]. Ignored tokens get zeros.
kernel void cross_entropy_hidden_gradient(
    device const float* gradients [[buffer(0)]],  // [tokens, vocab], of the logits
    device const ELEMENT* weight [[buffer(1)]],   // [vocab, width]
    device const uint* targets [[buffer(2)]],     // [tokens]
    device ELEMENT* dhidden [[buffer(3)]],        // [tokens, width]
    constant CrossEntropySpec& spec [[buffer(4)]],
    uint2 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    const uint2 first = uint2(tile.y * TILE_ROWS(4), tile.x * TILE_ROWS(4));
    const uint depth = any_supervised(targets, first.x, TILE_ROWS(4), spec) ? spec.vocab : 0;
    const Factor<float> all = {gradients, spec.tokens, spec.vocab, spec.vocab, false};
    const SupervisedFactor<float> left = {all, targets, spec, false};
    const Factor<ELEMENT> right = {weight, spec.width, spec.vocab, spec.width, true};
    simdgroup_float8x8 sums[16];
    clear<16>(sums);
    multiply<4>(left, right, first, uint2(0, depth), staged, sums, thread_index);
    const ToHiddenGradient to = {dhidden, spec};
    unload<4>(sums, first, staged, to, thread_index);
}

// Logits of a block of words become their gradient. One thread for each: [words, tokens] threads.
kernel void cross_entropy_word_gradients(
    device float* logits [[buffer(0)]],             // [tokens, words]
    device const uint* targets [[buffer(1)]],       // [tokens]
    device const float* dloss [[buffer(2)]],        // [tokens]
    device const float* log_sum_exp [[buffer(3)]],  // [tokens]
    constant CrossEntropySpec& spec [[buffer(4)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x >= spec.words || at.y >= spec.tokens || targets[at.y] >= spec.vocab) {
        return;
    }
    device float* to = logits + ulong(at.y) * spec.words + at.x;
    const float hit = targets[at.y] == spec.first_word + at.x ? 1.0f : 0.0f;
    const float probability = precise::exp(*to - log_sum_exp[at.y]);
    *to = dloss[at.y] * (probability - hit) * cap_slope(*to, spec);
}

struct ToWeightGradient {
    device ELEMENT* gradient;
    constant CrossEntropySpec& spec;

    void write(uint word, uint column, float value) const {
        if (word < spec.words && column < spec.width) {
            gradient[(ulong(spec.first_word) + word) * spec.width + column] = ELEMENT(value);
        }
    }
};

// One threadgroup for each tile of a block of the weight: [tiles of the width, tiles of words].
kernel void cross_entropy_weight_gradient(
    device const float* gradients [[buffer(0)]],  // [tokens, words], of the logits
    device const ELEMENT* hidden [[buffer(1)]],   // [tokens, width]
    device const uint* targets [[buffer(2)]],     // [tokens]
    device ELEMENT* dweight [[buffer(3)]],        // [vocab, width]
    constant CrossEntropySpec& spec [[buffer(4)]],
    uint2 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    const uint2 first = uint2(tile.y * TILE_ROWS(4), tile.x * TILE_ROWS(4));
    const Factor<float> all = {gradients, spec.words, spec.tokens, spec.words, true};
    const SupervisedFactor<float> left = {all, targets, spec, true};
    const Factor<ELEMENT> right = {hidden, spec.width, spec.tokens, spec.width, true};
    simdgroup_float8x8 sums[16];
    clear<16>(sums);
    multiply<4>(left, right, first, uint2(0, spec.tokens), staged, sums, thread_index);
    const ToWeightGradient to = {dweight, spec};
    unload<4>(sums, first, staged, to, thread_index);
}
