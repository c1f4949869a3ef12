// Products of matrices, tile by tile. A threadgroup of four SIMD groups, two by two, computes one tile; each SIMD group
// holds BLOCKS x BLOCKS matrices of 8 x 8 of its sum. Both factors pass through threadgroup memory in f32, with zeros
// beyond their ends, so that no shape is special. A sum runs along its whole depth in one order: the same bits always.

#define TILE_THREADS 128
// Depth that is staged at once.
#define TILE_DEPTH 16
// Floats between rows of staged tiles, against conflicts of banks.
#define TILE_PAD 4
// Rows and columns of a tile.
#define TILE_ROWS(blocks) (16 * (blocks))
// Floats of threadgroup memory that one factor's tile takes, and that a product takes.
#define TILE_FLOATS(blocks) (TILE_ROWS(blocks) * (TILE_DEPTH + TILE_PAD))
#define PRODUCT_FLOATS(blocks) (2 * TILE_FLOATS(blocks))

// One factor: [extent, depth], or [depth, extent] where `across`, with `stride` elements between rows.
template <typename T>
struct Factor {
    device const T* values;
    uint extent;
    uint depth;
    uint stride;
    bool across;

    float at(uint outer, uint inner) const {
        const ulong index = across ? ulong(inner) * stride + outer : ulong(outer) * stride + inner;
        return outer < extent && inner < depth ? float(values[index]) : 0.0f;
    }

    // Whether the depth from `start` on contributes anything.
    bool counts(uint) const {
        return true;
    }
};

// Copies a tile of a factor from row `first` and depth `start` on, as it lies in memory: [rows, TILE_DEPTH], or
// [TILE_DEPTH, rows] where `across`.
template <uint BLOCKS, typename F>
inline void stage(thread const F& factor, uint first, uint start, threadgroup float* staged, uint thread_index) {
    const uint rows = TILE_ROWS(BLOCKS);
    for (uint i = thread_index; i < rows * TILE_DEPTH; i += TILE_THREADS) {
        if (factor.across) {
            staged[i / rows * (rows + TILE_PAD) + i % rows] = factor.at(first + i % rows, start + i / rows);
        } else {
            const uint outer = i / TILE_DEPTH;
            staged[outer * (TILE_DEPTH + TILE_PAD) + i % TILE_DEPTH] = factor.at(first + outer, start + i % TILE_DEPTH);
        }
    }
}

// Eight rows and eight steps of depth of a staged tile: [rows, depth] where `rows_first`, else [depth, rows].
template <uint BLOCKS>
inline void load_block(thread simdgroup_float8x8& block, threadgroup const float* staged, uint row, uint depth,
                       bool across, bool rows_first) {
    const uint stride = across ? TILE_ROWS(BLOCKS) + TILE_PAD : TILE_DEPTH + TILE_PAD;
    threadgroup const float* from = staged + (across ? depth * stride + row : row * stride + depth);
    if (across == rows_first) {
        simdgroup_load(block, from, stride, ulong2(0, 0), true);
    } else {
        simdgroup_load(block, from, stride, ulong2(0, 0), false);
    }
}

template <uint BLOCKS>
inline void clear(thread simdgroup_float8x8* sums) {
    UNROLL for (uint i = 0; i < BLOCKS; i++) {
        sums[i] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
}

// sums += left right^T over the depths from depth.x up to depth.y, for the tile whose first row and column are `first`.
// `staged` holds PRODUCT_FLOATS(BLOCKS); every thread of the threadgroup takes part.
template <uint BLOCKS, typename Left, typename Right>
inline void multiply(thread const Left& left, thread const Right& right, uint2 first, uint2 depth,
                     threadgroup float* staged, thread simdgroup_float8x8* sums, uint thread_index) {
    threadgroup float* staged_right = staged + TILE_FLOATS(BLOCKS);
    const uint row = thread_index / 64 * 8 * BLOCKS;
    const uint column = thread_index / 32 % 2 * 8 * BLOCKS;
    for (uint start = depth.x; start < depth.y; start += TILE_DEPTH) {
        if (!left.counts(start)) {
            continue;
        }
        stage<BLOCKS>(left, first.x, start, staged, thread_index);
        stage<BLOCKS>(right, first.y, start, staged_right, thread_index);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        UNROLL for (uint k = 0; k < TILE_DEPTH; k += 8) {
            simdgroup_float8x8 rows[BLOCKS];
            UNROLL for (uint i = 0; i < BLOCKS; i++) {
                load_block<BLOCKS>(rows[i], staged, row + 8 * i, k, left.across, true);
            }
            UNROLL for (uint j = 0; j < BLOCKS; j++) {
                simdgroup_float8x8 columns;
                load_block<BLOCKS>(columns, staged_right, column + 8 * j, k, right.across, false);
                UNROLL for (uint i = 0; i < BLOCKS; i++) {
                    thread simdgroup_float8x8& sum = sums[i * BLOCKS + j];
                    simdgroup_multiply_accumulate(sum, rows[i], columns, sum);
                }
            }
        }
        // The next step overwrites what is staged.
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

// Gives every element of the tile to `to.write(row, column, value)`, through the memory that was staged in.
template <uint BLOCKS, typename To>
inline void unload(thread const simdgroup_float8x8* sums, uint2 first, threadgroup float* staged, thread const To& to,
                   uint thread_index) {
    const uint width = 8 * BLOCKS;
    const uint stride = width + TILE_PAD;
    threadgroup float* stripe = staged + thread_index / 32 * 8 * stride;
    const uint row = first.x + thread_index / 64 * width;
    const uint column = first.y + thread_index / 32 % 2 * width;
    for (uint i = 0; i < BLOCKS; i++) {
        UNROLL for (uint j = 0; j < BLOCKS; j++) {
            simdgroup_store(sums[i * BLOCKS + j], stripe + 8 * j, stride);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint at = thread_index % 32; at < 8 * width; at += 32) {
            to.write(row + 8 * i + at / width, column + at % width, stripe[at / width * stride + at % width]);
        }
        // The next stripe overwrites this one.
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}
