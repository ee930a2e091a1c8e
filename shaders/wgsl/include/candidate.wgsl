// An entry of the lists between `candidates` and `beam_step`. With SAMPLE the order is that of `key`, which is drawn.
struct Candidate {
    token: u32,
    logprob: f32,
#ifdef SAMPLE
    key: u32,
#endif
}

// What candidates are ordered by: NaN comes before every number, so that it is seen and not passed over.
fn candidate_key(value: f32) -> u32 {
    if ((bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u) { return 0xfffffffeu; }
    return ordered_key(value);
}
