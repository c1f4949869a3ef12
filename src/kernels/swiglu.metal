// The gated unit and its gradient, element by element: y = silu(gate) * up.

struct ElementwiseSpec {
    ulong elements;
};

inline float sigmoid(float x) {
    return 1.0f / (1.0f + exp(-x));
}

// One thread for each element.
kernel void swiglu(
    device const ELEMENT* gate [[buffer(0)]],
    device const ELEMENT* up [[buffer(1)]],
    device ELEMENT* y [[buffer(2)]],
    constant ElementwiseSpec& spec [[buffer(3)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        const float g = float(gate[at]);
        y[at] = ELEMENT(g * sigmoid(g) * float(up[at]));
    }
}

// One thread for each element.
kernel void swiglu_gradient(
    device const ELEMENT* gate [[buffer(0)]],
    device const ELEMENT* up [[buffer(1)]],
    device const ELEMENT* dy [[buffer(2)]],
    device ELEMENT* dgate [[buffer(3)]],
    device ELEMENT* dup [[buffer(4)]],
    constant ElementwiseSpec& spec [[buffer(5)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        const float g = float(gate[at]);
        const float d = float(dy[at]);
        const float open = sigmoid(g);
        // d silu(g) / dg = sigmoid(g) * (1 + g * (1 - sigmoid(g)))
        dgate[at] = ELEMENT(d * float(up[at]) * open * (1.0f + g * (1.0f - open)));
        dup[at] = ELEMENT(d * g * open);
    }
}
