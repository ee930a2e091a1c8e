#!/usr/bin/env python3
"""Adds sampling and beam sampling with known noise to the parity fixtures: sampling.json in some of the model folders of make_fixtures.py.

    pip install torch transformers safetensors numpy
    python make_sampling_fixtures.py --out tests/fixtures

torch.multinomial on the CPU takes the entries with the largest p / e, e being exponential noise from the generator; this is checked first. Then it is
replaced by that very formula with the noise of `noise` below, which a test can compute as well: the tokens must then be equal.

sampling.json has the form of reference.json (see make_fixtures.py), run with the versions named in it. "ordinal" of the noise is the index of the
input, "row" the sample or the beam. Each run is repeated in f64 by plain loops; an input stays in a case only if the ids are equal and the smallest
margin exceeds 1e-3 in what decides by score - ln(e) or by score, and 1e-5 in cumulated probability for top-p.
"""
import argparse, json, math, pathlib, random, sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import make_fixtures as mf

MODELS = ["bart-base-like", "bart-one-head", "bart-enc1-dec3-untied", "gpt2-base-like", "gpt2-head12-untied", "gpt2-head32-bf16"]
M64 = (1 << 64) - 1


def splitmix(x):
    x = x + np.uint64(0x9E3779B97F4A7C15); z = x
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9); z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def noise(ordinal, row, step, V):
    """-ln(u) for every token id, u in (0, 1) a hash of the four numbers; f32."""
    with np.errstate(over="ignore"):
        h = splitmix(splitmix(np.uint64(ordinal * 1_000_003 + row * 1009 + step)) + np.arange(V, dtype=np.uint64))
    return (-np.log(((h >> np.uint64(40)).astype(np.float64) + 0.5) / 2.0 ** 24)).astype(np.float32)


def check_multinomial():
    real = torch.multinomial
    for seed in range(50):
        p = torch.rand(3, 17, generator=torch.Generator().manual_seed(seed)); k = 1 + seed % 5
        torch.manual_seed(seed); drawn = real(p, k)
        torch.manual_seed(seed); e = torch.empty_like(p).exponential_(1)
        assert torch.equal(drawn, (p / e).topk(k, -1).indices), seed


class Known:
    """Replaces torch.multinomial for one run."""
    def __init__(self, ordinal, beams): self.ordinal, self.beams, self.step = ordinal, beams, 0
    def __call__(self, p, num_samples):
        V = p.shape[1] // self.beams
        e = np.stack([noise(self.ordinal, r, self.step, V) for r in range(p.shape[0] * self.beams)]).reshape(p.shape); self.step += 1
        return (p / torch.from_numpy(e)).topk(num_samples, -1).indices


def warp(s, o, keep, narrow):
    s = s / (o.get("temperature") or 1.0); V = len(s); k = o.get("top_k", 50)
    if k:
        k = max(k, keep); order = np.sort(s)[::-1]
        if k < V: narrow.pair(order[k - 1], order[k]); s = np.where(s >= order[k - 1], s, -np.inf)
    p = o.get("top_p", 1.0)
    if p < 1:
        order = np.argsort(s, kind="stable"); q = np.exp(s[order] - s.max()); cum = np.cumsum(q / q.sum())
        if np.abs(cum[:-keep] - (1 - p)).min() < 1e-5: narrow.value = 0
        gone = cum <= 1 - p; gone[-keep:] = False; s = s.copy(); s[order[gone]] = -np.inf
    return s


def sample(step, prompt, o, ordinal):
    P, eos, m, outs = len(prompt), mf.eos_of(o), mf.Margin(), []
    for row in range(o.get("num_return_sequences") or 1):
        seq, score = list(prompt), 0.0
        while len(seq) < o["max_length"]:
            s = warp(mf.process(step([seq])[0], o, seq, P), o, 1, m)
            key = s - np.log(noise(ordinal, row, len(seq) - P, len(s)).astype(np.float64))
            t = int(key.argmax()); m.chain(np.sort(key)[::-1][:2]); score += float(mf.log_softmax(s)[t]); seq.append(t)
            if t in eos: break
        outs.append((seq[P:], score))
    return outs, m.value


def beam_sample(step, prompt, o, ordinal):
    """The beam search of make_fixtures.search with drawn candidates."""
    P, nb, eos, m = len(prompt), o["num_beams"], mf.eos_of(o), mf.Margin()
    K, keep, lp, early = max(2, 1 + len(eos)) * nb, max(2, 1 + len(eos)), o.get("length_penalty", 1.0), o.get("early_stopping", False)
    run = [(list(prompt), 0.0 if b == 0 else mf.NEG) for b in range(nb)]; fin, is_open = [(mf.NEG, None, False)] * nb, True
    while True:
        n = len(run[0][0]); logp = mf.log_softmax(step([r[0] for r in run])); V = logp.shape[1]
        total = np.stack([warp(mf.process(logp[b], o, run[b][0], P), o, keep, m) + run[b][1] for b in range(nb)]).ravel()
        key = total - np.log(np.concatenate([noise(ordinal, b, n - P, V) for b in range(nb)]).astype(np.float64))
        rank = np.argsort(-key, kind="stable")[:K + 1]
        if not key[rank[K - 1]] > total.max() - 80: return [], 0.0          # Hugging Face refuses: too few probabilities above 0
        m.chain(key[rank]); cand = [(float(total[i]), run[i // V][0] + [int(i % V)]) for i in rank[:K]]
        hit = [c[1][-1] in eos or n + 1 >= o["max_length"] for c in cand]; full = all(f[2] for f in fin); pool = list(fin)
        for r, (sc, ids) in enumerate(cand):
            ok = hit[r] and r < nb and is_open and not (full and early is True)
            pool.append((sc / (n + 1 - P) ** lp + (0 if ok else mf.NEG), ids, bool(hit[r] and r < nb)))
        fin = sorted(pool, key=lambda f: -f[0]); m.chain([f[0] for f in fin[:nb + 1]]); fin = fin[:nb]
        after = sorted(((cand[r][0] + (mf.NEG if hit[r] else 0), r) for r in range(K)), key=lambda x: -x[0])
        m.chain([s for s, _ in after[:nb + 1]]); run = [(cand[r][1], s) for s, r in after[:nb]]; n += 1
        L = o["max_length"] - P if early == "never" and lp > 0 else n - P
        best, worst = run[0][1] / L ** lp, min(f[0] for f in fin)
        if is_open and best > -1e8:
            for f in fin:
                if f[2]: m.pair(best, worst)
        is_open = is_open and any(best > (worst if f[2] else mf.NEG) for f in fin)
        if not is_open or (early is True and all(f[2] for f in fin)) or all(hit): break
    return [(f[1][P:] if f[1] else [], f[0]) for f in fin[:o.get("num_return_sequences") or 1]], m.value


def draw(rng, eos, ids):
    nb = rng.choice([1, 1, 2, 3, 4]); chance = lambda p: rng.random() < p
    o = {"do_sample": True, "num_beams": nb, "max_new_tokens": rng.randrange(3, 13), "top_k": rng.choice([0, 50, 20, 8, 3] if nb == 1 else [0, 50, 20])}
    o["num_return_sequences"] = rng.randrange(1, 4) if nb == 1 else rng.randrange(1, nb + 1)
    if chance(0.7): o["temperature"] = rng.choice([0.6, 0.8, 1.3, 2.0])
    if chance(0.5): o["top_p"] = rng.choice([0.95, 0.9, 0.7] if nb == 1 else [0.99, 0.97])
    if nb > 1 and chance(0.6): o["length_penalty"] = rng.choice([0.0, 0.5, 2.0])
    if nb > 1 and chance(0.6): o["early_stopping"] = rng.choice([True, False, "never"])
    if chance(0.3): o["repetition_penalty"] = rng.choice([0.8, 1.3])
    if chance(0.2): o["no_repeat_ngram_size"] = 2
    if chance(0.3): o["eos_token_id"] = [eos] + rng.sample([i for i in ids if i != eos], rng.randrange(1, 3))
    return o


def make(folder, want, stats):
    auto = AutoModelForSeq2SeqLM if folder.name.startswith("bart") else AutoModelForCausalLM
    r = mf.Runner(auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval())
    inputs = json.loads((folder / "reference.json").read_text())["inputs"]; rng = random.Random("sampling " + folder.name)
    eos = mf.eos_of(r.m32.generation_config.to_dict())[0]; V = r.m32.config.vocab_size; real = torch.multinomial; cases = []
    for number in range(400):
        if len(cases) == want: break
        o, kept, outs, margin = draw(rng, eos, range(4, V)), [], [], math.inf
        for i, x in enumerate(inputs):
            if len(kept) == 4: break
            eff, prompt = r.effective(o, x)
            if eff["max_length"] > r.m32.config.max_position_embeddings: continue
            second, m = (sample if o["num_beams"] == 1 else beam_sample)(r.stepper(x), prompt, eff, i); stats["runs"] += 1
            if m <= mf.MIN_MARGIN or any(not s > -1e8 for _, s in second): stats["narrow"] += 1; continue
            torch.multinomial = Known(i, o["num_beams"])
            try: first = r.first(x, o)
            finally: torch.multinomial = real
            if [y for y, _ in first] != [y for y, _ in second]: sys.exit(f"{folder.name} {o} input {i}: {first} != {second} at margin {m}")
            assert max(abs(a[1] - b[1]) / max(1, abs(b[1])) for a, b in zip(first, second)) < 5e-5, (first, second)
            kept.append(i); outs.append([{"token_ids": y, "score": float(f"{s:.7g}")} for y, s in first]); margin = min(margin, m)
        if len(kept) >= 2: cases.append({"name": f"sampling-{number}", "generation": o, "inputs": kept, "outputs": outs, "margin": float(f"{margin:.3g}")})
    text = json.dumps({"versions": mf.VERSIONS, "inputs": inputs})[:-1] + ',"cases":[\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n"
    (folder / "sampling.json").write_text(text)
    print(folder.name, len(cases), "cases,", sum(c["generation"]["num_beams"] > 1 for c in cases), "with beams,", len(text), "bytes", stats, flush=True)
    return len(cases)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--cases", type=int, default=10, help="cases kept per model")
    a = ap.parse_args()
    check_multinomial()
    stats = {"runs": 0, "narrow": 0}
    print(sum(make(pathlib.Path(a.out) / name, a.cases, stats) for name in MODELS), "cases")
