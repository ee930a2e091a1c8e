// How weights and caches are stored: `Quad` is four consecutive elements. Must be the first line of a shader, because of `enable`.
// STORE_F16 needs SHADER_F16; STORE_F16_PACKED holds the same bits as pairs in u32 and needs nothing.
#ifdef STORE_F16
enable f16;
alias Quad = vec4<f16>;
fn widen(q: Quad) -> vec4<f32> { return vec4<f32>(q); }
fn narrow(v: vec4<f32>) -> Quad { return vec4<f16>(v); }
#endif
#ifdef STORE_F16_PACKED
alias Quad = vec2<u32>;
fn widen(q: Quad) -> vec4<f32> { return vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y)); }
fn narrow(v: vec4<f32>) -> Quad { return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw)); }
#endif
#ifdef STORE_F32
alias Quad = vec4<f32>;
fn widen(q: Quad) -> vec4<f32> { return q; }
fn narrow(v: vec4<f32>) -> Quad { return v; }
#endif
