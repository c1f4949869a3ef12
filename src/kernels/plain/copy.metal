// Copies that may change the layout: permutations, broadcasts, slices, concatenations, and what a state becomes.

// y [extents] is row-major; strides say how far x moves for a step along each axis, in elements.
struct StridedSpec {
    // First element of x.
    ulong offset;
    uint extent_0;
    uint extent_1;
    uint extent_2;
    uint extent_3;
    uint extent_4;
    uint stride_0;
    uint stride_1;
    uint stride_2;
    uint stride_3;
    uint stride_4;
};

// Up to four tensors [rows, width] side by side, from column `start` of y [rows, columns] on.
struct ConcatSpec {
    uint rows;
    uint columns;
    uint start;
    uint width_0;
    uint width_1;
    uint width_2;
    uint width_3;
};

// One thread for each element, here and below.
kernel void copy(
    device const ELEMENT* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant ElementwiseSpec& spec [[buffer(2)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = x[at];
    }
}

// [extent_4, extent_3, extents 0 to 2] threads
kernel void strided_copy(
    device const ELEMENT* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant StridedSpec& spec [[buffer(2)]],
    uint3 at [[thread_position_in_grid]]) {
    if (at.x >= spec.extent_4 || at.y >= spec.extent_3) {
        return;
    }
    const uint outer = at.z / spec.extent_2;
    ulong from = spec.offset + ulong(at.x) * spec.stride_4 + ulong(at.y) * spec.stride_3;
    from += ulong(at.z % spec.extent_2) * spec.stride_2;
    from += ulong(outer % spec.extent_1) * spec.stride_1 + ulong(outer / spec.extent_1) * spec.stride_0;
    const ulong to = (ulong(at.z) * spec.extent_3 + at.y) * spec.extent_4 + at.x;
    y[to] = x[from];
}

// [widths in all, rows] threads
kernel void concat(
    device const ELEMENT* x_0 [[buffer(0)]],
    device const ELEMENT* x_1 [[buffer(1)]],
    device const ELEMENT* x_2 [[buffer(2)]],
    device const ELEMENT* x_3 [[buffer(3)]],
    device ELEMENT* y [[buffer(4)]],
    constant ConcatSpec& spec [[buffer(5)]],
    uint2 at [[thread_position_in_grid]]) {
    device const ELEMENT* x = x_0;
    uint width = spec.width_0;
    uint column = at.x;
    if (column >= width) {
        column -= width;
        x = x_1;
        width = spec.width_1;
        if (column >= width) {
            column -= width;
            x = x_2;
            width = spec.width_2;
            if (column >= width) {
                column -= width;
                x = x_3;
                width = spec.width_3;
            }
        }
    }
    if (column < width && at.y < spec.rows) {
        y[ulong(at.y) * spec.columns + spec.start + at.x] = x[ulong(at.y) * width + column];
    }
}

// [width, count] threads. Rows that would lie past the state's end are dropped.
kernel void write_rows(
    device const ELEMENT* values [[buffer(0)]],  // [count, width]
    device const uint* start [[buffer(1)]],      // [1]
    device ELEMENT* state [[buffer(2)]],         // [rows, width]
    constant RowsSpec& spec [[buffer(3)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x >= spec.width || at.y >= spec.count) {
        return;
    }
    const ulong row = ulong(start[0]) + at.y;
    if (row < spec.rows) {
        state[row * spec.width + at.x] = values[ulong(at.y) * spec.width + at.x];
    }
}
