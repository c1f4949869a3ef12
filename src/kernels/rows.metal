// Rows by number: token embeddings, and the supervised rows of a batch.

struct RowsSpec {
    // Ids there are.
    uint count;
    uint width;
    // Rows of the table; an id from here on, such as IGNORED, names none.
    uint rows;
};

// One thread for each element of the result: [width, count] threads. An id that names no row gives zeros.
kernel void gather_rows(
    device const ELEMENT* table [[buffer(0)]],  // [rows, width]
    device const uint* ids [[buffer(1)]],       // [count]
    device ELEMENT* y [[buffer(2)]],            // [count, width]
    constant RowsSpec& spec [[buffer(3)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x >= spec.width || at.y >= spec.count) {
        return;
    }
    const uint id = ids[at.y];
    const ulong to = ulong(at.y) * spec.width + at.x;
    y[to] = id < spec.rows ? table[ulong(id) * spec.width + at.x] : ELEMENT(0.0f);
}
