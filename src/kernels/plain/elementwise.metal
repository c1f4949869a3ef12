// Functions of single elements: one thread for each element. elementwise.rs has the same functions for the CPU.

// The function's number is the host's.
struct FunctionSpec {
    uint elements;
    uint function;
};

// x * multiply + add; to fill, `add` alone.
struct AffineSpec {
    uint elements;
    float multiply;
    float add;
};

inline float unary_value(uint function, float x) {
    switch (function) {
        case 0: return -x;
        case 1: return precise::exp(x);
        case 2: return precise::log(x);
        case 3: return precise::sqrt(x);
        case 4: return precise::divide(1.0f, x);
        case 5: return precise::divide(1.0f, 1.0f + precise::exp(-x));
        case 6: return precise::tanh(x);
        case 7: return precise::sin(x);
        default: return precise::cos(x);
    }
}

inline float binary_value(uint function, float a, float b) {
    switch (function) {
        case 0: return a + b;
        case 1: return a - b;
        case 2: return a * b;
        case 3: return precise::divide(a, b);
        // The right side where they cannot be compared: a NaN there is kept.
        case 4: return a < b ? a : b;
        default: return a == b ? 1.0f : 0.0f;
    }
}

kernel void unary(
    device const ELEMENT* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant FunctionSpec& spec [[buffer(2)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = ELEMENT(unary_value(spec.function, float(x[at])));
    }
}

kernel void binary(
    device const ELEMENT* a [[buffer(0)]],
    device const ELEMENT* b [[buffer(1)]],
    device ELEMENT* y [[buffer(2)]],
    constant FunctionSpec& spec [[buffer(3)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = ELEMENT(binary_value(spec.function, float(a[at]), float(b[at])));
    }
}

kernel void affine(
    device const ELEMENT* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant AffineSpec& spec [[buffer(2)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = ELEMENT(float(x[at]) * spec.multiply + spec.add);
    }
}

kernel void fill(
    device ELEMENT* y [[buffer(0)]],
    constant AffineSpec& spec [[buffer(1)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = ELEMENT(spec.add);
    }
}

// From and to the type that sums and trained values have, and from ids.
kernel void to_float(
    device const ELEMENT* x [[buffer(0)]],
    device float* y [[buffer(1)]],
    constant ElementwiseSpec& spec [[buffer(2)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = float(x[at]);
    }
}

kernel void from_float(
    device const float* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant ElementwiseSpec& spec [[buffer(2)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = ELEMENT(x[at]);
    }
}

kernel void from_ids(
    device const uint* x [[buffer(0)]],
    device ELEMENT* y [[buffer(1)]],
    constant ElementwiseSpec& spec [[buffer(2)]],
    uint at [[thread_position_in_grid]]) {
    if (at < spec.elements) {
        y[at] = ELEMENT(float(x[at]));
    }
}
