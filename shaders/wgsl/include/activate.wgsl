// Activation functions; ACTIVATION is an override, so that a pipeline holds only its own. Each maps 0 to 0, which keeps pad columns zero.
override ACTIVATION: u32 = 0u;

// erf as an odd rational function on [-4, 4] (minimax fit, below 1e-6 absolute); no exp, and exact symmetry.
fn erf4(v: vec4<f32>) -> vec4<f32> {
    let x = clamp(v, vec4(-4.0), vec4(4.0));
    let s = x * x;
    var a = fma(s, vec4(-2.72614225801306e-10), vec4(2.77068142495902e-08));
    a = fma(s, a, vec4(-2.10102402082508e-06));
    a = fma(s, a, vec4(-5.69250639462346e-05));
    a = fma(s, a, vec4(-7.34990630326855e-04));
    a = fma(s, a, vec4(-2.95459980854025e-03));
    a = fma(s, a, vec4(-1.60960333262415e-02));
    var b = fma(s, vec4(-1.45660718464996e-05), vec4(-2.13374055278905e-04));
    b = fma(s, b, vec4(-1.68282697438203e-03));
    b = fma(s, b, vec4(-7.37332916720468e-03));
    b = fma(s, b, vec4(-1.42647390514189e-02));
    return x * a / b;
}

// 1 / (1 + exp(-x)); exp saturates to infinity or 0, never to NaN.
fn sigmoid4(v: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp(-v));
}

fn activate(v: vec4<f32>) -> vec4<f32> {
    if (ACTIVATION == 1u) { return 0.5 * v * (1.0 + erf4(v * 0.70710678118654752)); }
    // gelu(tanh): 0.5 (1 + tanh(u)) = sigmoid(2u)
    if (ACTIVATION == 2u) { return v * sigmoid4(1.5957691216057308 * (v + 0.044715 * v * v * v)); }
    if (ACTIVATION == 3u) { return v * sigmoid4(1.702 * v); }
    if (ACTIVATION == 4u) { return max(v, vec4(0.0)); }
    if (ACTIVATION == 5u) { return v * sigmoid4(v); }
    return v;
}
