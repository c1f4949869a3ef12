// Products with the small matrices of adapters: up to three in one dispatch, such as those of q, k and v, which share
// their input. With a great depth and few outputs (gradients sum over all tokens) a product is split along its depth
// into partial sums, which are added in their order.

// y [rows, columns] = scale * left right^T, added to what y holds where `add`.
struct ProductSpec {
    // First element of its partial sums [splits, rows, columns].
    ulong partials;
    uint rows;
    uint columns;
    uint depth;
    // [depth, rows] instead of [rows, depth], and [depth, columns] instead of [columns, depth].
    uint left_across;
    uint right_across;
    uint add;
    uint splits;
    float scale;
};

inline Factor<ELEMENT> left_factor(device const ELEMENT* values, constant ProductSpec& spec) {
    const bool across = spec.left_across != 0;
    return Factor<ELEMENT>{values, spec.rows, spec.depth, across ? spec.rows : spec.depth, across};
}

inline Factor<ELEMENT> right_factor(device const ELEMENT* values, constant ProductSpec& spec) {
    const bool across = spec.right_across != 0;
    return Factor<ELEMENT>{values, spec.columns, spec.depth, across ? spec.columns : spec.depth, across};
}

template <typename T>
inline void update(device T& y, float sum, constant ProductSpec& spec) {
    y = T(spec.add != 0 ? float(y) + spec.scale * sum : spec.scale * sum);
}

struct ToProduct {
    device ELEMENT* y;
    constant ProductSpec& spec;

    void write(uint row, uint column, float sum) const {
        if (row < spec.rows && column < spec.columns) {
            update(y[ulong(row) * spec.columns + column], sum, spec);
        }
    }
};

struct ToPartials {
    device float* partials;
    constant ProductSpec& spec;

    void write(uint row, uint column, float sum) const {
        if (row < spec.rows && column < spec.columns) {
            partials[ulong(row) * spec.columns + column] = sum;
        }
    }
};

// One threadgroup for each tile: [tiles of columns, tiles of rows, products]. A product that is not there has no rows.
kernel void products(
    device const ELEMENT* left_0 [[buffer(0)]],
    device const ELEMENT* left_1 [[buffer(1)]],
    device const ELEMENT* left_2 [[buffer(2)]],
    device const ELEMENT* right_0 [[buffer(3)]],
    device const ELEMENT* right_1 [[buffer(4)]],
    device const ELEMENT* right_2 [[buffer(5)]],
    device ELEMENT* y_0 [[buffer(6)]],
    device ELEMENT* y_1 [[buffer(7)]],
    device ELEMENT* y_2 [[buffer(8)]],
    constant ProductSpec* specs [[buffer(9)]],  // [3]
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(2));
    const uint2 first = uint2(tile.y * TILE_ROWS(2), tile.x * TILE_ROWS(2));
    constant ProductSpec& spec = specs[tile.z];
    if (first.x >= spec.rows || first.y >= spec.columns) {
        return;
    }
    device const ELEMENT* left = tile.z == 0 ? left_0 : tile.z == 1 ? left_1 : left_2;
    device const ELEMENT* right = tile.z == 0 ? right_0 : tile.z == 1 ? right_1 : right_2;
    simdgroup_float8x8 sums[4];
    clear<4>(sums);
    multiply<2>(left_factor(left, spec), right_factor(right, spec), first, uint2(0, spec.depth), staged, sums, thread_index);
    const ToProduct to = {tile.z == 0 ? y_0 : tile.z == 1 ? y_1 : y_2, spec};
    unload<2>(sums, first, staged, to, thread_index);
}

// One threadgroup for each tile and share of the depth: [tiles of columns, tiles of rows, 3 * splits], where splits of a
// product come together and `splits` is the same for all. A split takes whole steps of TILE_DEPTH.
kernel void product_partials(
    device const ELEMENT* left_0 [[buffer(0)]],
    device const ELEMENT* left_1 [[buffer(1)]],
    device const ELEMENT* left_2 [[buffer(2)]],
    device const ELEMENT* right_0 [[buffer(3)]],
    device const ELEMENT* right_1 [[buffer(4)]],
    device const ELEMENT* right_2 [[buffer(5)]],
    device float* partials [[buffer(6)]],
    constant ProductSpec* specs [[buffer(7)]],  // [3]
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(2));
    const uint2 first = uint2(tile.y * TILE_ROWS(2), tile.x * TILE_ROWS(2));
    const uint splits = specs[0].splits;
    const uint product = tile.z / splits;
    const uint split = tile.z % splits;
    constant ProductSpec& spec = specs[product];
    if (first.x >= spec.rows || first.y >= spec.columns) {
        return;
    }
    device const ELEMENT* left = product == 0 ? left_0 : product == 1 ? left_1 : left_2;
    device const ELEMENT* right = product == 0 ? right_0 : product == 1 ? right_1 : right_2;
    const uint steps = (spec.depth + TILE_DEPTH - 1) / TILE_DEPTH;
    const uint share = (steps + splits - 1) / splits * TILE_DEPTH;
    const uint2 depth = uint2(min(split * share, spec.depth), min((split + 1) * share, spec.depth));
    simdgroup_float8x8 sums[4];
    clear<4>(sums);
    multiply<2>(left_factor(left, spec), right_factor(right, spec), first, depth, staged, sums, thread_index);
    const ToPartials to = {partials + spec.partials + ulong(split) * spec.rows * spec.columns, spec};
    unload<2>(sums, first, staged, to, thread_index);
}

template <typename T>
inline void add_splits(device const float* partials, device T* y, constant ProductSpec& spec, uint at) {
    const ulong elements = ulong(spec.rows) * spec.columns;
    if (at >= elements) {
        return;
    }
    float sum = 0.0f;
    for (uint split = 0; split < spec.splits; split++) {
        sum += partials[spec.partials + split * elements + at];
    }
    update(y[at], sum, spec);
}

// One thread for each element: [elements, products] threads.
kernel void add_partials(
    device const float* partials [[buffer(0)]],
    device ELEMENT* y_0 [[buffer(1)]],
    device ELEMENT* y_1 [[buffer(2)]],
    device ELEMENT* y_2 [[buffer(3)]],
    constant ProductSpec* specs [[buffer(4)]],  // [3]
    uint2 at [[thread_position_in_grid]]) {
    add_splits(partials, at.y == 0 ? y_0 : at.y == 1 ? y_1 : y_2, specs[at.y], at.x);
}

// The same, for products that are wider than their factors.
kernel void add_wide_partials(
    device const float* partials [[buffer(0)]],
    device float* y_0 [[buffer(1)]],
    device float* y_1 [[buffer(2)]],
    device float* y_2 [[buffer(3)]],
    constant ProductSpec* specs [[buffer(4)]],  // [3]
    uint2 at [[thread_position_in_grid]]) {
    add_splits(partials, at.y == 0 ? y_0 : at.y == 1 ? y_1 : y_2, specs[at.y], at.x);
}
