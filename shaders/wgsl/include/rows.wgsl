// The state of one physical row (a beam or a sample of a sentence); mirrors `RowState` in crates/tensor/src/rows/state.rs.
struct RowState {
    sentence: u32,    // index into the per-sentence tables
    beam: u32,        // index of this row within its sentence
    width: u32,       // rows of the sentence
    length: u32,      // ids in tokens[row] now; the one at length - 1 is fed next
    live: u32,        // keys attended to in the step that feeds that id, its own included: the first entries of slots[row]
    prompt_len: u32,  // ids of the decoder prompt
    prompt_base: u32, // slot of prompt position 0
    gen_base: u32,    // slot of this row's first generated position
    owns_prompt: u32, // 1 if this row writes the prompt's slots
    limit: u32,       // positions that slots were reserved for; 0: any
}

// The slot of a position that this row itself writes. A row that has got all its ids needs none for the last: it writes its own last slot, and
// not its neighbour's first.
fn own_slot(row: RowState, position: u32) -> u32 {
    let at = min(position, row.limit - 1u);
    return select(row.gen_base + (at - row.prompt_len) * row.width, row.prompt_base + at, at < row.prompt_len);
}
