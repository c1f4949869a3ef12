// Gated units and their gradients, element by element: y = f(gate) * up; gated.rs has the formulas.

struct ElementwiseSpec {
    ulong elements;
};

inline float sigmoid(float x) {
    return 1.0f / (1.0f + precise::exp(-x));
}

// x * sigmoid(x)
struct Silu {
    static float value(float x) {
        return x * sigmoid(x);
    }
    // f(x) / x and f'(x)
    static float ratio(float x) {
        return sigmoid(x);
    }
    static float slope(float x) {
        const float open = sigmoid(x);
        return open * (1.0f + x * (1.0f - open));
    }
};

// x * (1 + tanh(u)) / 2 = x * sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
struct GeluTanh {
    // 2 u
    static float inner(float x) {
        return x * (1.595769f + 0.07135481f * x * x);
    }
    static float value(float x) {
        return x * sigmoid(inner(x));
    }
    static float ratio(float x) {
        return sigmoid(inner(x));
    }
    static float slope(float x) {
        // 1 - sigmoid(2 u) would lose its digits where x times the slope of u is large.
        const float rest = sigmoid(-inner(x));
        const float growth = x * (1.595769f + 0.21406444f * x * x);
        return sigmoid(inner(x)) * (1.0f + growth * rest);
    }
};

template <typename Gate>
inline void gate_forward(device const ELEMENT* gate, device const ELEMENT* up, device ELEMENT* y, ulong elements, uint at) {
    if (at < elements) {
        y[at] = ELEMENT(Gate::value(float(gate[at])) * float(up[at]));
    }
}

template <typename Gate>
inline void gate_backward(device const ELEMENT* gate, device const ELEMENT* up, device const ELEMENT* dy,
                          device ELEMENT* dgate, device ELEMENT* dup, ulong elements, uint at) {
    if (at < elements) {
        const float g = float(gate[at]);
        const float d = float(dy[at]);
        dgate[at] = ELEMENT(d * float(up[at]) * Gate::slope(g));
        dup[at] = ELEMENT(d * g * Gate::ratio(g));
    }
}

// One thread for each element, here and below.
kernel void swiglu(
    device const ELEMENT* gate [[buffer(0)]],
    device const ELEMENT* up [[buffer(1)]],
    device ELEMENT* y [[buffer(2)]],
    constant ElementwiseSpec& spec [[buffer(3)]],
    uint at [[thread_position_in_grid]]) {
    gate_forward<Silu>(gate, up, y, spec.elements, at);
}

kernel void swiglu_gradient(
    device const ELEMENT* gate [[buffer(0)]],
    device const ELEMENT* up [[buffer(1)]],
    device const ELEMENT* dy [[buffer(2)]],
    device ELEMENT* dgate [[buffer(3)]],
    device ELEMENT* dup [[buffer(4)]],
    constant ElementwiseSpec& spec [[buffer(5)]],
    uint at [[thread_position_in_grid]]) {
    gate_backward<Silu>(gate, up, dy, dgate, dup, spec.elements, at);
}

kernel void geglu(
    device const ELEMENT* gate [[buffer(0)]],
    device const ELEMENT* up [[buffer(1)]],
    device ELEMENT* y [[buffer(2)]],
    constant ElementwiseSpec& spec [[buffer(3)]],
    uint at [[thread_position_in_grid]]) {
    gate_forward<GeluTanh>(gate, up, y, spec.elements, at);
}

kernel void geglu_gradient(
    device const ELEMENT* gate [[buffer(0)]],
    device const ELEMENT* up [[buffer(1)]],
    device const ELEMENT* dy [[buffer(2)]],
    device ELEMENT* dgate [[buffer(3)]],
    device ELEMENT* dup [[buffer(4)]],
    constant ElementwiseSpec& spec [[buffer(5)]],
    uint at [[thread_position_in_grid]]) {
    gate_backward<GeluTanh>(gate, up, dy, dgate, dup, spec.elements, at);
}
