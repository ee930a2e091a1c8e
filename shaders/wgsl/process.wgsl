// The logits processors of Hugging Face `generate()`, in its order, in place: one workgroup per active row. With
// LOG_SOFTMAX (beam search) they act on log-probabilities. A forced row needs neither the logits nor the edits that
// come before forcing. Pad columns stay 0.
#include rows
#include search
struct Params { vocab: u32, quads: u32, table: u32 }
#include params
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read> settings: Settings;
@group(0) @binding(4) var<storage, read> open: array<u32>;
@group(0) @binding(5) var<storage, read_write> logits: array<vec4<f32>>;
override WG: u32 = 256u;
override LOG_SOFTMAX: bool = false;
#include reduce
#include sentences

var<private> base: u32; // first quad of this row

fn put(token: u32, value: f32) {
    if (token < p.vocab) { logits[base + token / 4u][token % 4u] = value; }
}

// Gives `outside` to the pad columns of a quad.
fn within(q: u32, value: vec4<f32>, outside: f32) -> vec4<f32> {
    return select(vec4<f32>(outside), value, vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.vocab));
}

// x - max - ln sum exp(x - max). A row of -inf stays as it is.
fn log_softmax(at: Invocation) {
    var peak = LOWEST;
    var sum = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = within(q, logits[base + q], LOWEST);
        let top = max(max(x.x, x.y), max(x.z, x.w));
        if (top > peak) {
            sum *= exp(peak - top);
            peak = top;
        }
        let e = exp(x - vec4<f32>(peak));
        sum += (e.x + e.y) + (e.z + e.w);
    }
    let row_peak = reduce_max(peak, at);
    let ln_sum = log(reduce_sum(sum * exp(peak - row_peak), at));
    if (row_peak > LOWEST) {
        for (var q = at.tid; q < p.quads; q += WG) {
            logits[base + q] = within(q, logits[base + q] - vec4<f32>(row_peak) - vec4<f32>(ln_sum), 0.0);
        }
    }
}

// Each distinct id of the sequence once. All of a round's scores are read before any is written, so ids that occur
// twice in a round are written twice with one value; ids of earlier rounds are skipped.
fn penalise_repetition(tid: u32, said: u32, length: u32) {
    for (var first = 0u; first < length; first += WG) {
        var token = NONE;
        if (first + tid < length) {
            token = tokens[said + first + tid];
            for (var k = 0u; k < first; k++) {
                if (tokens[said + k] == token) {
                    token = NONE;
                    break;
                }
            }
        }
        var score = 0.0;
        if (token < p.vocab) { score = logits[base + token / 4u][token % 4u]; }
        storageBarrier();
        if (score < 0.0) { score *= settings.repetition_penalty; } else { score /= settings.repetition_penalty; }
        put(token, score);
        storageBarrier();
    }
}

// True if `count` ids from word `at` of the settings' lists end the sequence.
fn ends_with(at: u32, count: u32, said: u32, length: u32) -> bool {
    if (count > length) { return false; }
    for (var k = 0u; k < count; k++) {
        if (settings.words[at + k] != tokens[said + length - count + k]) { return false; }
    }
    return true;
}

fn ban_repeated_ngrams(tid: u32, said: u32, length: u32) {
    let size = settings.ngram;
    if (size == 0u || length < size) { return; }
    for (var start = tid; start + size <= length; start += WG) {
        var same = true;
        for (var k = 0u; k + 1u < size && same; k++) {
            same = tokens[said + start + k] == tokens[said + length + 1u - size + k];
        }
        if (same) { put(tokens[said + start + size - 1u], settings.neg_inf); }
    }
}

fn put_all(tid: u32, list: vec2<u32>, value: f32) {
    for (var k = tid; k < list.y; k += WG) { put(settings.words[list.x + k], value); }
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let tid = at.tid;
    let physical = active_rows[at.wg.x];
    let row = state[physical];
    if (open[row.sentence] == 0u) { return; }
    let limits = sentence(row.sentence);
    let said = physical * p.table;
    let length = row.length;
    base = at.wg.x * p.quads;

    let force_bos = settings.forced_bos != NONE && length == 1u;
    let force_eos = settings.forced_eos.y > 0u && length + 1u == limits.max_length;
    if (force_bos || force_eos) {
        for (var q = tid; q < p.quads; q += WG) { logits[base + q] = within(q, vec4<f32>(settings.neg_inf), 0.0); }
        storageBarrier();
        if (force_eos) {
            put_all(tid, settings.forced_eos, 0.0);
        } else if (tid == 0u) {
            put(settings.forced_bos, 0.0);
        }
        storageBarrier();
    } else {
        if (LOG_SOFTMAX) {
            log_softmax(at);
            storageBarrier();
        }
        if (settings.repetition_penalty != 1.0) { penalise_repetition(tid, said, length); }
        // From here on all edits write -inf: their order does not matter.
        ban_repeated_ngrams(tid, said, length);
        for (var k = tid; k < settings.bad_words.y; k += WG) {
            let first = settings.words[settings.bad_words.x + 2u * k];
            let last = settings.words[settings.bad_words.x + 2u * k + 1u] - 1u;
            if (ends_with(first, last, said, length)) { put(settings.words[first + last], settings.neg_inf); }
        }
        if (length < limits.min_length || length - row.prompt_len < limits.min_new_tokens) {
            put_all(tid, settings.eos, settings.neg_inf);
        }
    }
    put_all(tid, settings.suppress, settings.neg_inf);
    // A forced BOS takes the first place behind a start token, so the text begins one later.
    let begin = row.prompt_len + select(0u, 1u, row.prompt_len == 1u && settings.forced_bos != NONE);
    if (length == begin) { put_all(tid, settings.begin_suppress, settings.neg_inf); }
}
