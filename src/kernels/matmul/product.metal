// Batches of products of matrices in any layout, where the device's own product does not do: it knows no sum that is
// wider than its factors, and no batch in layouts that differ.

// y [batch, rows, columns] = left right^T
struct MatrixSpec {
    uint rows;
    uint columns;
    uint depth;
    // [depth, rows] instead of [rows, depth], and [depth, columns] instead of [columns, depth].
    uint left_across;
    uint right_across;
};

template <typename T>
struct ToMatrix {
    device T* y;
    constant MatrixSpec& spec;

    void write(uint row, uint column, float sum) const {
        if (row < spec.rows && column < spec.columns) {
            y[ulong(row) * spec.columns + column] = T(sum);
        }
    }
};

template <typename T>
inline void matrix_product(device const ELEMENT* left, device const ELEMENT* right, device T* y,
                           constant MatrixSpec& spec, uint3 tile, threadgroup float* staged, uint thread_index) {
    const bool down = spec.left_across != 0;
    const bool across = spec.right_across != 0;
    const ulong batch = tile.z;
    const Factor<ELEMENT> rows = {left + batch * spec.rows * spec.depth, spec.rows, spec.depth,
                                  down ? spec.rows : spec.depth, down};
    const Factor<ELEMENT> columns = {right + batch * spec.columns * spec.depth, spec.columns, spec.depth,
                                     across ? spec.columns : spec.depth, across};
    const uint2 first = uint2(tile.y * TILE_ROWS(4), tile.x * TILE_ROWS(4));
    simdgroup_float8x8 sums[16];
    clear<16>(sums);
    multiply<4>(rows, columns, first, uint2(0, spec.depth), staged, sums, thread_index);
    const ToMatrix<T> to = {y + batch * spec.rows * spec.columns, spec};
    unload<4>(sums, first, staged, to, thread_index);
}

// One threadgroup for each tile: [tiles of columns, tiles of rows, batch].
kernel void matrix_products(
    device const ELEMENT* left [[buffer(0)]],
    device const ELEMENT* right [[buffer(1)]],
    device ELEMENT* y [[buffer(2)]],
    constant MatrixSpec& spec [[buffer(3)]],
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    matrix_product(left, right, y, spec, tile, staged, thread_index);
}

kernel void wide_matrix_products(
    device const ELEMENT* left [[buffer(0)]],
    device const ELEMENT* right [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant MatrixSpec& spec [[buffer(3)]],
    uint3 tile [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
    THREADGROUP_ARRAY(float, staged, PRODUCT_FLOATS(4));
    matrix_product(left, right, y, spec, tile, staged, thread_index);
}
