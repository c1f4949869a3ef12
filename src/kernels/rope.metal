// Rotary position embedding of the halves of each head.

struct RopeSpec {
    uint rows;
    uint heads;
    uint head_dim;
    // 1, or -1 to rotate back.
    float sign;
};

// One thread for each pair of elements: [head_dim / 2, heads, rows] threads.
kernel void rope(
    device const ELEMENT* x [[buffer(0)]],  // [rows, heads, head_dim]
    device const float* cosines [[buffer(1)]],  // [rows, head_dim / 2]
    device const float* sines [[buffer(2)]],    // [rows, head_dim / 2]
    device ELEMENT* y [[buffer(3)]],        // [rows, heads, head_dim]
    constant RopeSpec& spec [[buffer(4)]],
    uint3 at [[thread_position_in_grid]]) {
    const uint pairs = spec.head_dim / 2;
    if (at.x >= pairs || at.y >= spec.heads || at.z >= spec.rows) {
        return;
    }
    const ulong angle = ulong(at.z) * pairs + at.x;
    const ulong first = (ulong(at.z) * spec.heads + at.y) * spec.head_dim + at.x;
    const float cosine = cosines[angle];
    const float sine = sines[angle] * spec.sign;
    const float a = float(x[first]);
    const float b = float(x[first + pairs]);
    y[first] = ELEMENT(a * cosine - b * sine);
    y[first + pairs] = ELEMENT(b * cosine + a * sine);
}
