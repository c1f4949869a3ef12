// The bias of a linear layer.

struct BiasSpec {
    uint rows;
    uint width;
};

// One thread for each element: [width, rows] threads.
kernel void add_bias(
    device const ELEMENT* x [[buffer(0)]],     // [rows, width]
    device const ELEMENT* bias [[buffer(1)]],  // [width]
    device ELEMENT* y [[buffer(2)]],           // [rows, width]
    constant BiasSpec& spec [[buffer(3)]],
    uint2 at [[thread_position_in_grid]]) {
    if (at.x < spec.width && at.y < spec.rows) {
        const ulong to = ulong(at.y) * spec.width + at.x;
        y[to] = ELEMENT(float(x[to]) + float(bias[at.x]));
    }
}
