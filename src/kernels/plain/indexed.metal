// Rows and elements chosen by ids, but for rows.metal's. Ids outside the table, such as IGNORED, choose nothing.

// One id for each of `rows` rows of `width` elements.
struct PickSpec {
    uint rows;
    uint width;
};

// [n] threads: for each place the next one with the same id, or `count`; then whether it is the first one with its id.
kernel void link_ids(
    device const uint* ids [[buffer(0)]],  // [count]
    device uint* links [[buffer(1)]],      // [2, count]
    constant RowsSpec& spec [[buffer(2)]],
    uint at [[thread_position_in_grid]]) {
    if (at >= spec.count) {
        return;
    }
    uint next = at + 1;
    while (next < spec.count && ids[next] != ids[at]) {
        next++;
    }
    uint earlier = at;
    while (earlier > 0 && ids[earlier - 1] != ids[at]) {
        earlier--;
    }
    links[at] = next;
    links[spec.count + at] = earlier == 0 ? 1 : 0;
}

// [width, count] threads: the sum of the values of equal ids, in their order. y holds zeros before.
kernel void scatter_rows(
    device const uint* ids [[buffer(0)]],        // [count]
    device const ELEMENT* values [[buffer(1)]],  // [count, width]
    device const uint* links [[buffer(2)]],      // [2, count]
    device ELEMENT* y [[buffer(3)]],             // [rows, width]
    constant RowsSpec& spec [[buffer(4)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x >= spec.width || at.y >= spec.count) {
        return;
    }
    const uint id = ids[at.y];
    if (id >= spec.rows || links[spec.count + at.y] == 0) {
        return;
    }
    float sum = 0.0f;
    for (uint place = at.y; place < spec.count; place = links[place]) {
        sum += float(values[ulong(place) * spec.width + at.x]);
    }
    y[ulong(id) * spec.width + at.x] = ELEMENT(sum);
}

// [rows] threads
kernel void take_last(
    device const ELEMENT* x [[buffer(0)]],  // [rows, width]
    device const uint* ids [[buffer(1)]],   // [rows]
    device ELEMENT* y [[buffer(2)]],        // [rows]
    constant PickSpec& spec [[buffer(3)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.rows) {
        y[at] = ids[at] < spec.width ? x[ulong(at) * spec.width + ids[at]] : ELEMENT(0.0f);
    }
}

// [width, rows] threads
kernel void scatter_last(
    device const ELEMENT* values [[buffer(0)]],  // [rows]
    device const uint* ids [[buffer(1)]],        // [rows]
    device ELEMENT* y [[buffer(2)]],             // [rows, width]
    constant PickSpec& spec [[buffer(3)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x < spec.width && at.y < spec.rows) {
        y[ulong(at.y) * spec.width + at.x] = ids[at.y] == at.x ? values[at.y] : ELEMENT(0.0f);
    }
}
