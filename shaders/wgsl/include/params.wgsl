// The constants of one dispatch, `p`, of a struct `Params` that holds only u32 and f32. Immediates where the device has them, else a window of a uniform buffer.
#ifdef IMMEDIATES
var<immediate> p: Params;
#else
@group(1) @binding(0) var<uniform> p: Params;
#endif
