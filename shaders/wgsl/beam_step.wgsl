// Beam search, second stage, one workgroup per active sentence: merges the lists of `candidates` into the K best of all
// its beams (the lower beam, then the lower token on ties), continues the best that did not end, takes those that ended
// among the first BEAMS into the finished slots, and decides whether the sentence goes on. Steps 2 to 8 of Hugging
// Face's beam search; a sentence that is done is not touched again. With SAMPLE, candidates rank in the order of their
// draws. A sentence without a finite candidate is done.
#include rows
#include search
struct Params { vocab: u32, parts: u32, part_tokens: u32, trace_rows: u32 }
#include params
struct Hypothesis { score: f32, token: u32, parent: u32, grows: u32 }
#include candidate
struct Trace { token: u32, parent: u32, logprob: f32 }
struct Slot { score: f32, step: u32, parent: u32, token: u32, logprob: f32, done: u32 }
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> settings: Settings;
@group(0) @binding(3) var<storage, read> lists: array<Candidate>;
@group(0) @binding(4) var<storage, read_write> hypotheses: array<Hypothesis>;
@group(0) @binding(5) var<storage, read_write> finished: array<Slot>;
@group(0) @binding(6) var<storage, read_write> trace: array<Trace>;
@group(0) @binding(7) var<storage, read_write> open: array<u32>;
// WG is at least BEAMS + K: one invocation per slot and candidate. LISTS is BEAMS times the parts of the vocabulary.
override WG: u32 = 256u;
override BEAMS: u32 = 1u;
override K: u32 = 2u;
override LISTS: u32 = 1u;
override POOL: u32 = 3u; // BEAMS + K
#include reduce
#include best
#include sentences

var<workgroup> head: array<u32, LISTS>;            // entries of each list that are taken
var<workgroup> beam_score: array<f32, BEAMS>;
var<workgroup> merged: array<vec2<u32>, K>;        // (beam * vocab + token, bits of the log-probability)
var<workgroup> running_key: array<u32, K>;
var<workgroup> finished_key: array<u32, POOL>;     // old slots, then candidates
var<workgroup> slot_key: array<u32, BEAMS>;        // of the new slots, in order
var<workgroup> slot_done: array<u32, BEAMS>;
var<workgroup> hits: array<u32, K>;
var<workgroup> best_running: f32;

// The best (key, beam * vocab + token) at the head of this invocation's lists; their log-probability in `mine_logprob`.
var<private> mine_logprob: f32;
fn best_head(tid: u32, base: u32) -> vec2<u32> {
    var best = vec2<u32>(0u, NONE);
    for (var list = tid; list < LISTS; list += WG) {
        if (head[list] < K) {
            let entry = lists[(base + list) * K + head[list]];
            if (entry.token != NONE) {
                let beam = list / p.parts;
#ifdef SAMPLE
                let key = entry.key;
#else
                let key = candidate_key(entry.logprob + beam_score[beam]);
#endif
                let other = vec2<u32>(key, beam * p.vocab + entry.token);
                if (beats(other, best)) {
                    best = other;
                    mine_logprob = entry.logprob;
                }
            }
        }
    }
    return best;
}

fn divisor(length: u32) -> f32 { return bitcast<f32>(settings.words[settings.divisors + length]); }

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let tid = at.tid;
    let row = state[active_rows[at.wg.x * BEAMS]];
    let first = active_rows[at.wg.x * BEAMS] - row.beam;
    if (open[row.sentence] == 0u) {
        if (tid < BEAMS) { hypotheses[first + tid] = Hypothesis(hypotheses[first + tid].score, 0u, tid, 0u); }
        return;
    }
    let limits = sentence(row.sentence);
    let step = row.length - row.prompt_len;

    // The K best candidates.
    for (var list = tid; list < LISTS; list += WG) { head[list] = 0u; }
    if (tid < BEAMS) { beam_score[tid] = hypotheses[first + tid].score; }
    workgroupBarrier();
    let base = at.wg.x * LISTS;
    var mine = best_head(tid, base);
    for (var k = 0u; k < K; k++) {
        let best = reduce_best(mine, at);
        // With nothing left at all, invocation 0 stands in for a winner: a token outside of the vocabulary at -inf.
        if (best.y == NONE) {
            if (tid == 0u) { merged[k] = vec2<u32>(NONE, bitcast<u32>(settings.neg_inf)); }
        } else if (mine.y == best.y) {
            merged[k] = vec2<u32>(best.y, bitcast<u32>(mine_logprob));
            let list = best.y / p.vocab * p.parts + best.y % p.vocab / p.part_tokens;
            head[list]++;
            mine = best_head(tid, base);
        }
    }
    workgroupBarrier();

    // Invocation j holds candidate j - BEAMS, or old slot j.
    var slot = Slot(0.0, 0u, 0u, 0u, 0.0, 0u);
    var running = 0.0;
    let candidate = tid - BEAMS;
    if (tid < BEAMS) {
        slot = finished[row.sentence * BEAMS + tid];
        finished_key[tid] = ordered_key(slot.score);
    } else if (tid < POOL) {
        let flat = merged[candidate].x;
        let beam = min(flat / p.vocab, BEAMS - 1u);
        let token = flat % p.vocab;
        let logprob = bitcast<f32>(merged[candidate].y);
        let score = logprob + beam_score[beam];
        let hit = row.length + 1u >= limits.max_length || is_eos(token);
        running = score + select(0.0, settings.masked, hit);
        running_key[candidate] = ordered_key(running);
        hits[candidate] = u32(hit);
        // One that ended behind rank BEAMS is neither kept nor continued.
        let done = hit && candidate < BEAMS;
        let final_score = score / divisor(step + 1u) + select(settings.masked, 0.0, done);
        slot = Slot(final_score, step, beam, token, logprob, u32(done));
        finished_key[tid] = ordered_key(slot.score);
    }
    workgroupBarrier();

    // Places by counting who is ahead: no order of execution matters.
    if (tid < POOL) {
        var place = 0u;
        for (var other = 0u; other < POOL; other++) {
            place += u32(beats(vec2<u32>(finished_key[other], other), vec2<u32>(finished_key[tid], tid)));
        }
        if (place < BEAMS) {
            finished[row.sentence * BEAMS + place] = slot;
            slot_key[place] = finished_key[tid];
            slot_done[place] = slot.done;
        }
    }
    if (tid >= BEAMS && tid < POOL) {
        var place = 0u;
        for (var other = 0u; other < K; other++) {
            place += u32(beats(vec2<u32>(running_key[other], other), vec2<u32>(running_key[candidate], candidate)));
        }
        if (place < BEAMS) {
            hypotheses[first + place] = Hypothesis(running, slot.token, slot.parent, 1u);
            trace[step * p.trace_rows + first + place] = Trace(slot.token, slot.parent, slot.logprob);
            if (place == 0u) { best_running = running; }
        }
    }
    workgroupBarrier();
    storageBarrier();

    if (tid == 0u) {
        let length = select(step + 1u, limits.max_length - row.prompt_len, settings.optimistic == 1u);
        let best = ordered_key(best_running / divisor(length));
        var worst = slot_key[0];
        for (var k = 1u; k < BEAMS; k++) { worst = min(worst, slot_key[k]); }
        var improves = false;
        var full = true;
        var any = false;
        for (var k = 0u; k < BEAMS; k++) {
            improves = improves || best > select(ordered_key(settings.masked), worst, slot_done[k] == 1u);
            full = full && slot_done[k] == 1u;
            any = any || slot_done[k] == 1u;
        }
        var ended = 0u;
        for (var k = 0u; k < K; k++) { ended += hits[k]; }
        if (!improves || (full && settings.early_stopping == 1u) || ended == K) { open[row.sentence] = 0u; }
        // The best candidate is NaN or an infinity; with -inf, there is no candidate at all, and what is finished can be
        // returned. A best slot of -inf tells the host that nothing can.
        let top = bitcast<f32>(merged[0].y) + beam_score[min(merged[0].x / p.vocab, BEAMS - 1u)];
        if (!is_finite(top) && (bitcast<u32>(top) != bitcast<u32>(settings.neg_inf) || !any)) {
            finished[row.sentence * BEAMS].score = settings.neg_inf;
            open[row.sentence] = 0u;
        }
    }
}
