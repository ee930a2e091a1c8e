// The logits processors of Hugging Face `generate()`, in its order, in place: one workgroup per active row. With
// LOG_SOFTMAX (beam search) they act on log-probabilities. A forced row needs neither the logits nor the edits that
// come before forcing. With SOURCES, also those that look at a sentence's source. Pad columns stay 0.
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
#ifdef SOURCES
@group(0) @binding(6) var<storage, read> sources: array<u32>;
#endif
override WG: u32 = 256u;
override LOG_SOFTMAX: bool = false;
#include reduce
#include sentences
#include log_softmax

fn put(token: u32, value: f32) {
    if (token < p.vocab) { logits[base + token / 4u][token % 4u] = value; }
}

fn penalised(score: f32, penalty: f32) -> f32 {
    if (score < 0.0) { return score * penalty; }
    return score / penalty;
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
        put(token, penalised(score, settings.repetition_penalty));
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

// Adds to each biased id the sum of the biases whose other ids end the sequence. The biases of an id lie together, in the
// order in which they are summed: records of (id, first bias, number of biases), and of (first word, number of ids, bias).
fn add_biases(tid: u32, said: u32, length: u32) {
    for (var k = tid; k < settings.biased.y; k += WG) {
        let group = settings.biased.x + 3u * k;
        let token = settings.words[group];
        var sum = 0.0;
        for (var i = 0u; i < settings.words[group + 2u]; i++) {
            let bias = settings.words[group + 1u] + 3u * i;
            if (ends_with(settings.words[bias], settings.words[bias + 1u], said, length)) {
                sum += bitcast<f32>(settings.words[bias + 2u]);
            }
        }
        put(token, logits[base + token / 4u][token % 4u] + sum);
    }
}

#ifdef SOURCES
// Each distinct id of the source.
fn reward_source(tid: u32, head: u32) {
    for (var k = tid; k < sources[head + 3u]; k += WG) {
        let token = sources[sources[head + 2u] + k];
        if (token < p.vocab) { put(token, penalised(logits[base + token / 4u][token % 4u], settings.source_penalty)); }
    }
}

fn ban_source_ngrams(tid: u32, head: u32, said: u32, length: u32) {
    let size = settings.source_ngram;
    if (size == 0u || length + 1u < size) { return; }
    let first = sources[head];
    for (var start = tid; start + size <= sources[head + 1u]; start += WG) {
        var same = true;
        for (var k = 0u; k + 1u < size && same; k++) {
            same = sources[first + start + k] == tokens[said + length + 1u - size + k];
        }
        if (same) { put(sources[first + start + size - 1u], settings.neg_inf); }
    }
}
#endif

// NaN becomes 0, an infinity the largest finite number of its sign.
fn repaired(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x);
    let size = bits & vec4<u32>(0x7fffffffu);
    let largest = bitcast<vec4<f32>>((bits & vec4<u32>(0x80000000u)) | vec4<u32>(0x7f7fffffu));
    let finite = select(x, largest, size == vec4<u32>(0x7f800000u));
    return select(finite, vec4<f32>(0.0), size > vec4<u32>(0x7f800000u));
}

// The EOS ids, each of which is listed once: s + |s| growth, infinities and NaN excepted.
fn grow_eos(tid: u32, growth: f32) {
    for (var k = tid; k < settings.eos.y; k += WG) {
        let token = settings.words[settings.eos.x + k];
        let score = logits[base + token / 4u][token % 4u];
        if ((bitcast<u32>(score) & 0x7f800000u) != 0x7f800000u) { put(token, score + abs(score) * growth); }
    }
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
        if (settings.biased.y > 0u) {
            add_biases(tid, said, length);
            storageBarrier();
        }
#ifdef SOURCES
        let head = 4u * row.sentence;
        if (settings.source_penalty != 1.0) {
            reward_source(tid, head);
            storageBarrier();
        }
#endif
        if (settings.repetition_penalty != 1.0) { penalise_repetition(tid, said, length); }
        // From here to the repair all edits write -inf: their order does not matter.
        ban_repeated_ngrams(tid, said, length);
#ifdef SOURCES
        ban_source_ngrams(tid, head, said, length);
#endif
        for (var k = tid; k < settings.bad_words.y; k += WG) {
            let first = settings.words[settings.bad_words.x + 2u * k];
            let last = settings.words[settings.bad_words.x + 2u * k + 1u] - 1u;
            if (ends_with(first, last, said, length)) { put(settings.words[first + last], settings.neg_inf); }
        }
        if (length < limits.min_length || length - row.prompt_len < limits.min_new_tokens) {
            put_all(tid, settings.eos, settings.neg_inf);
        }
    }
    if (settings.remove_invalid == 1u) {
        storageBarrier();
        for (var q = tid; q < p.quads; q += WG) { logits[base + q] = within(q, repaired(logits[base + q]), 0.0); }
    }
    let said_new = length - row.prompt_len;
    if (settings.decay.y > 0u && said_new >= settings.decay_first) {
        storageBarrier();
        grow_eos(tid, bitcast<f32>(settings.words[settings.decay.x + said_new - settings.decay_first]));
        storageBarrier();
    } else if (settings.remove_invalid == 1u) {
        storageBarrier();
    }
    put_all(tid, settings.suppress, settings.neg_inf);
    // A forced BOS takes the first place behind a start token, so the text begins one later.
    let begin = row.prompt_len + select(0u, 1u, row.prompt_len == 1u && settings.forced_bos != NONE);
    if (length == begin) { put_all(tid, settings.begin_suppress, settings.neg_inf); }
}
