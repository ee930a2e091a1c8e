// What a kernel really issues, for tests: `counts`, the shader's last binding, is array<atomic<u32>, 2> or longer.
// counts[0]: quads of cache elements loaded. counts[1]: multiply-adds of scores and contexts in units of 4, one fma of a vec4 being 1.
fn count_loads(quads: u32) { atomicAdd(&counts[0], quads); }
fn count_fmas(units: u32) { atomicAdd(&counts[1], units); }
