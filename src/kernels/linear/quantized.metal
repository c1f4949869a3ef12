// Products with frozen weights as GGUF files store them, decoded as tiles are staged: blocks of 32 or 256 values along
// the inputs, each with its scales.

// The order of the host's `WeightFormat`.
#define FORMAT_Q4_0 0
#define FORMAT_Q4_1 1
#define FORMAT_Q5_0 2
#define FORMAT_Q5_1 3
#define FORMAT_Q8_0 4
#define FORMAT_Q2_K 5
#define FORMAT_Q3_K 6
#define FORMAT_Q4_K 7
#define FORMAT_Q5_K 8
#define FORMAT_Q6_K 9

constant ushort weight_format [[function_constant(1)]];

struct QuantizedSpec {
    uint rows;
    uint outputs;
    uint inputs;
    // Of the weight's blocks.
    uint block_values;
    uint block_bytes;
    // y [rows, inputs] = x [rows, outputs] weight, a gradient's way back, instead of y [rows, outputs] = x weight^T.
    uint transpose;
};

// Bytes need not be aligned.
inline float half_at(device const uchar* bytes) {
    return float(as_type<half>(ushort(bytes[0] | bytes[1] << 8)));
}

// The eight values from `start` on of a block of 32: a scale, a minimum in some formats, fifth bits in some, then nibbles:
// those of the first half of the block are the low ones.
inline void decode_small(device const uchar* block, uint start, thread float* values) {
    const bool has_minimum = weight_format == FORMAT_Q4_1 || weight_format == FORMAT_Q5_1;
    const bool has_fifth_bit = weight_format == FORMAT_Q5_0 || weight_format == FORMAT_Q5_1;
    const float scale = half_at(block);
    const float minimum = has_minimum ? half_at(block + 2) : 0.0f;
    device const uchar* bytes = block + (has_minimum ? 4 : 2);
    if (weight_format == FORMAT_Q8_0) {
        for (uint i = 0; i < 8; i++) {
            values[i] = scale * float(as_type<char>(bytes[start + i]));
        }
        return;
    }
    device const uchar* nibbles = bytes + (has_fifth_bit ? 4 : 0) + start % 16;
    const int zero = has_minimum ? 0 : has_fifth_bit ? 16 : 8;
    for (uint i = 0; i < 8; i++) {
        int value = nibbles[i] >> (start < 16 ? 0 : 4) & 15;
        value |= has_fifth_bit ? (bytes[start / 8] >> i & 1) << 4 : 0;
        values[i] = scale * float(value - zero) + minimum;
    }
}

// Scale and minimum (x, y) of 32 values in formats of 4 and 5 bits: eight of each, of 6 bits, in twelve bytes.
inline uint2 six_bits(device const uchar* packed, uint index) {
    if (index < 4) {
        return uint2(packed[index] & 63, packed[index + 4] & 63);
    }
    const uint last = packed[index + 4];
    return uint2((last & 15) | packed[index - 4] >> 6 << 4, last >> 4 | packed[index] >> 6 << 4);
}

// Sixteen scales of 6 bits for 16 values each: low nibbles in eight bytes, then pairs of high bits in four.
inline int scale_of_q3(device const uchar* packed, uint index) {
    const int low = packed[index % 8] >> (index < 8 ? 0 : 4) & 15;
    return (low | (packed[8 + index % 4] >> (index / 4 * 2) & 3) << 4) - 32;
}

// The eight values from `start` on of a block of 256.
inline void decode_large(device const uchar* block, uint start, thread float* values) {
    float scale = 0.0f;
    float minimum = 0.0f;
    // The byte that holds low bits of the first value, and where in it; then the same of its high bits.
    uint low = 0;
    uint low_shift = 0;
    uint high = 0;
    uint high_shift = 0;
    uint low_mask = 15;
    int zero = 0;
    const uint pairs = start / 128 * 32 + start % 32;
    if (weight_format == FORMAT_Q2_K) {
        scale = half_at(block + 80) * float(block[start / 16] & 15);
        minimum = half_at(block + 82) * float(block[start / 16] >> 4);
        low = 16 + pairs;
    } else if (weight_format == FORMAT_Q3_K) {
        scale = half_at(block + 108) * float(scale_of_q3(block + 96, start / 16));
        low = 32 + pairs;
        high = start % 32;
        high_shift = start / 32;
        zero = 4;
    } else if (weight_format == FORMAT_Q6_K) {
        scale = half_at(block + 208) * float(as_type<char>(block[192 + start / 16]));
        low = start / 128 * 64 + start % 64;
        low_shift = start % 128 / 64 * 4;
        high = 128 + pairs;
        high_shift = start % 128 / 32 * 2;
        zero = 32;
    } else {
        const uint2 factors = six_bits(block + 4, start / 32);
        scale = half_at(block) * float(factors.x);
        minimum = half_at(block + 2) * float(factors.y);
        low = (weight_format == FORMAT_Q4_K ? 16 : 48) + start / 64 * 32 + start % 32;
        low_shift = start % 64 / 32 * 4;
        high = 16 + start % 32;
        high_shift = start / 32;
    }
    if (weight_format == FORMAT_Q2_K || weight_format == FORMAT_Q3_K) {
        low_mask = 3;
        low_shift = start % 128 / 32 * 2;
    }
    const bool has_high = weight_format != FORMAT_Q2_K && weight_format != FORMAT_Q4_K;
    const uint high_mask = weight_format == FORMAT_Q6_K ? 3 : 1;
    for (uint i = 0; i < 8; i++) {
        int value = block[low + i] >> low_shift & low_mask;
        value |= has_high ? (block[high + i] >> high_shift & high_mask) * (low_mask + 1) : 0;
        values[i] = scale * float(value - zero) - minimum;
    }
}

// A weight [outputs, inputs] as a factor: its depth are the inputs, or the outputs where `across`.
struct QuantizedFactor {
    device const uchar* blocks;
    constant QuantizedSpec& spec;
    bool across;

    // Eight values of an output from a multiple of eight on; zeros beyond the ends.
    void decode(uint output, uint input, thread float* values) const {
        if (output >= spec.outputs || input >= spec.inputs) {
            for (uint i = 0; i < 8; i++) {
                values[i] = 0.0f;
            }
            return;
        }
        const ulong row = ulong(output) * (spec.inputs / spec.block_values);
        device const uchar* block = blocks + (row + input / spec.block_values) * spec.block_bytes;
        if (spec.block_values == 32) {
            decode_small(block, input % 32, values);
        } else {
            decode_large(block, input % 256, values);
        }
    }
};

template <uint BLOCKS>
inline void stage(thread const QuantizedFactor& factor, uint first, uint start, threadgroup float* staged,
                  uint thread_index) {
    const uint rows = TILE_ROWS(BLOCKS);
    const uint runs = (factor.across ? rows : TILE_DEPTH) / 8;
    const uint stride = (factor.across ? rows : TILE_DEPTH) + TILE_PAD;
    for (uint run = thread_index; run < rows * TILE_DEPTH / 8; run += TILE_THREADS) {
        const uint row = run / runs;
        const uint column = run % runs * 8;
        float values[8];
        if (factor.across) {
            factor.decode(start + row, first + column, values);
        } else {
            factor.decode(first + row, start + column, values);
        }
        for (uint i = 0; i < 8; i++) {
            staged[row * stride + column + i] = values[i];
        }
    }
}

struct ToQuantizedProduct {
    device ELEMENT* y;
    uint rows;
    uint columns;

    void write(uint row, uint column, float sum) const {
        if (row < rows && column < columns) {
            y[ulong(row) * columns + column] = ELEMENT(sum);
        }
    }
};

// One threadgroup for each tile: [tiles of columns, tiles of rows].
kernel void quantized_product(
    device const ELEMENT* x [[buffer(0)]],      // [rows, inputs], or [rows, outputs] where `transpose`
    device const uchar* weight [[buffer(1)]],   // [outputs, inputs / block_values] blocks
    device ELEMENT* y [[buffer(2)]],            // [rows, outputs], or [rows, inputs]
    constant QuantizedSpec& spec [[buffer(3)]],
    uint2 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    const uint2 first = uint2(tile.y * TILE_ROWS(4), tile.x * TILE_ROWS(4));
    const bool transpose = spec.transpose != 0;
    const uint depth = transpose ? spec.outputs : spec.inputs;
    const Factor<ELEMENT> left = {x, spec.rows, depth, depth, false};
    const QuantizedFactor right = {weight, spec, transpose};
    simdgroup_float8x8 sums[16];
    clear<16>(sums);
    multiply<4>(left, right, first, uint2(0, depth), staged, sums, thread_index);
    const ToQuantizedProduct to = {y, spec.rows, transpose ? spec.inputs : spec.outputs};
    unload<4>(sums, first, staged, to, thread_index);
}
