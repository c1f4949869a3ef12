// Masks: of dropout, and of attention written out in plain operations. generate.rs has the same for the CPU.

struct DropoutSpec {
    // An element is dropped when its 32 random bits are below this.
    ulong threshold;
    uint elements;
    uint stream;
    float keep;
    uint unused;
};

// Queries [rows], each with as many keys.
struct MaskSpec {
    uint rows;
    uint keys;
    // Keys that a query sees at most, its own the last of them.
    uint window;
};

// The high and the low half of a product.
inline uint2 product_halves(uint a, uint b) {
    const ulong product = ulong(a) * b;
    return uint2(uint(product >> 32), uint(product));
}

// One thread for four elements: a block of Philox4x32-10 (Salmon et al. 2011), with the block's number as its counter.
kernel void dropout_mask(
    device const uint* seed [[buffer(0)]],  // [2]
    device ELEMENT* y [[buffer(1)]],
    constant DropoutSpec& spec [[buffer(2)]],
    uint block [[thread_position_in_grid]]) {
    if (ulong(block) * 4 >= spec.elements) {
        return;
    }
    uint counter[4] = {block, 0, spec.stream, 0};
    uint key[2] = {seed[0], seed[1]};
    for (uint round = 0; round < 10; round++) {
        const uint2 a = product_halves(counter[0], 0xd2511f53u);
        const uint2 b = product_halves(counter[2], 0xcd9e8d57u);
        counter[0] = b.x ^ counter[1] ^ key[0];
        counter[1] = b.y;
        counter[2] = a.x ^ counter[3] ^ key[1];
        counter[3] = a.y;
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    for (uint i = 0; i < 4 && ulong(block) * 4 + i < spec.elements; i++) {
        y[ulong(block) * 4 + i] = ELEMENT(counter[i] < spec.threshold ? 0.0f : spec.keep);
    }
}

// [keys, rows] threads; a row of the batch has as many queries as keys.
kernel void attention_mask(
    device const uint* segments [[buffer(0)]],  // [rows]
    device ELEMENT* y [[buffer(1)]],            // [rows, keys]
    constant MaskSpec& spec [[buffer(2)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x >= spec.keys || at.y >= spec.rows) {
        return;
    }
    const uint query = at.y % spec.keys;
    const bool near = at.x <= query && query - at.x < spec.window;
    const bool seen = near && segments[at.y - query + at.x] == segments[at.y];
    y[ulong(at.y) * spec.keys + at.x] = ELEMENT(seen ? 0.0f : MASKED);
}

// [keys, rows] threads; the first query stands at position `start`.
kernel void cache_mask(
    device const uint* start [[buffer(0)]],  // [1]
    device ELEMENT* y [[buffer(1)]],         // [rows, keys]
    constant MaskSpec& spec [[buffer(2)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x >= spec.keys || at.y >= spec.rows) {
        return;
    }
    const ulong query = ulong(start[0]) + at.y;
    const bool seen = at.x <= query && query - at.x < spec.window;
    y[ulong(at.y) * spec.keys + at.x] = ELEMENT(seen ? 0.0f : MASKED);
}
