// An entry of the lists between `candidates` and `beam_step`. With SAMPLE the order is that of `key`, which is drawn.
struct Candidate {
    token: u32,
    logprob: f32,
#ifdef SAMPLE
    key: u32,
#endif
}
