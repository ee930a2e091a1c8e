#!/usr/bin/env python3
"""Adds diverse beam search to the parity fixtures: diverse.json in some of the model folders that make_fixtures.py has made.

    pip install torch "transformers==4.55.4" safetensors numpy
    python make_diverse_fixtures.py --out tests/fixtures

transformers 4.55 is the last release whose library holds `group_beam_search`; later ones fetch it as remote code.

diverse.json has the form of reference.json (see make_fixtures.py): {"versions", "inputs", "cases"}. Every input is run alone, in float32, with a
mask of ones. Each run is repeated by `groups` below: plain loops in f64 on the f64 model, without a cache. An input stays in a case only if both give
the same ids and the smallest margin of everything that decides exceeds 1e-3: neighbouring candidates of every group (K + 1 of them), a new
hypothesis against the worst of a full heap, the stop test, and neighbouring hypotheses of the final order. A case needs two inputs and at least one
of them must come out differently when diversity_penalty is almost 0.
"""
import argparse, json, pathlib, random, sys

import numpy as np
import torch, transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import make_fixtures as mf

MODELS = ["bart-base-like", "bart-one-head", "bart-enc1-dec3-untied", "bart-head20-sharded", "gpt2-base-like", "gpt2-head12-untied", "gpt2-head32-bf16"]


def groups(step, prompt, o):
    """Diverse beam search over step(list of id lists) -> f64 logits. Returns ([(new ids, score)], smallest margin)."""
    P, nb, G, eos, m = len(prompt), o["num_beams"], o["num_beam_groups"], mf.eos_of(o), mf.Margin()
    size, pad = nb // G, o.get("pad_token_id") if o.get("pad_token_id") is not None else (eos or [None])[0]
    lp, early, K = o.get("length_penalty", 1.0), o.get("early_stopping", False), max(2, 1 + len(eos)) * size
    run = [[(list(prompt), 0.0 if b == 0 else mf.NEG) for b in range(size)] for _ in range(G)]
    heaps, done = [[] for _ in range(G)], [False] * G

    def add(g, ids, score):
        if len(heaps[g]) == size:
            worst = min(heaps[g])[0]; m.pair(score, worst)
            if score <= worst: return
            heaps[g].remove(min(heaps[g]))
        heaps[g].append((score, ids))

    n = P
    while True:
        logp = mf.log_softmax(step([r[0] for g in run for r in g])); V = logp.shape[1]; chosen = []
        for g in range(G):
            if done[g]: chosen += [pad] * size; run[g] = [(ids + [pad], s) for ids, s in run[g]]; continue
            rows = logp[g * size:(g + 1) * size] - o["diversity_penalty"] * np.bincount(chosen, minlength=V)[:V]
            total = np.stack([mf.process(rows[b], o, run[g][b][0], P) + run[g][b][1] for b in range(size)]).ravel()
            order = np.argsort(-total, kind="stable"); m.chain(total[order[:K + 1]])
            fresh = []
            for rank, i in enumerate(order[:K]):
                ids = run[g][i // V][0] + [int(i % V)]
                if ids[-1] in eos:
                    if rank < size: add(g, ids[:-1] + [eos[0]], float(total[i]) / (n + 1 - P) ** lp)
                else: fresh.append((ids, float(total[i])))
                if len(fresh) == size: break
            run[g] = fresh; chosen += [ids[-1] for ids, _ in fresh]
            if len(heaps[g]) == size:
                L = o["max_length"] - P if early == "never" and lp > 0 else n + 1 - P
                best, worst = float(total[order[0]]) / L ** lp, min(heaps[g])[0]
                if early is not True: m.pair(best, worst)
                done[g] = early is True or worst >= best
        n += 1
        if all(done) or n >= o["max_length"]: break
    for g in range(G):
        if not done[g]:
            for ids, s in run[g]: add(g, ids, s / (n - P) ** lp)
    every = sorted((h for heap in heaps for h in heap), key=lambda h: -h[0])
    m.chain([h[0] for h in every])
    return [(ids[P:], s) for s, ids in every[:o.get("num_return_sequences") or 1]], m.value


def draw(rng, eos, ids):
    G, size = rng.choice([2, 2, 2, 3, 3, 4]), rng.choice([1, 1, 2, 2, 3])
    o = {"num_beams": G * size, "num_beam_groups": G, "diversity_penalty": rng.choice([0.3, 0.5, 1.0, 1.5, 3.0]), "max_new_tokens": rng.randrange(4, 15)}
    o["num_return_sequences"] = rng.randrange(1, G * size + 1)
    chance = lambda p: rng.random() < p
    if chance(0.6): o["length_penalty"] = rng.choice([-1.0, 0.0, 0.5, 1.5, 2.0])
    if chance(0.7): o["early_stopping"] = rng.choice([True, False, "never"])
    if chance(0.3): o["repetition_penalty"] = rng.choice([0.8, 1.2, 1.5])
    if chance(0.3): o["no_repeat_ngram_size"] = rng.randrange(2, 4)
    if chance(0.3): o["eos_token_id"] = [eos] + rng.sample([i for i in ids if i != eos], rng.randrange(1, 3))
    if chance(0.2): o["forced_eos_token_id"] = eos
    if chance(0.2): o["min_new_tokens"] = rng.randrange(1, 4)
    if chance(0.2): o["suppress_tokens"] = rng.sample([i for i in ids if i != eos], 2)
    return o


def make(folder, want, stats):
    auto = AutoModelForSeq2SeqLM if folder.name.startswith("bart") else AutoModelForCausalLM
    r = mf.Runner(auto.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").eval())
    inputs = json.loads((folder / "reference.json").read_text())["inputs"]; rng = random.Random("diverse " + folder.name)
    eos = mf.eos_of(r.m32.generation_config.to_dict())[0]
    seen = sorted({t for x in inputs[:3] for t in r.plain(x, r.effective({}, x)[1][0], 4, 12)} | {5, 9})
    cases = []
    for number in range(400):
        if len(cases) == want: break
        o, kept, outs, margin, acts = draw(rng, eos, seen), [], [], float("inf"), False
        for i, x in enumerate(inputs):
            if len(kept) == 4: break
            eff, prompt = r.effective(o, x)
            if eff["max_length"] > r.m32.config.max_position_embeddings: continue
            second, m = groups(r.stepper(x), prompt, eff); stats["runs"] += 1
            if m <= mf.MIN_MARGIN or any(not s > -1e8 for _, s in second): stats["narrow"] += 1; continue
            first = r.first(x, o)
            if [y for y, _ in first] != [y for y, _ in second]: sys.exit(f"{folder.name} {o} input {x}: {first} != {second} at margin {m}")
            assert max(abs(a[1] - b[1]) / max(1, abs(b[1])) for a, b in zip(first, second)) < 5e-5
            acts |= [y for y, _ in groups(r.stepper(x), prompt, eff | {"diversity_penalty": 1e-6})[0]] != [y for y, _ in second]
            kept.append(i); outs.append([{"token_ids": y, "score": float(f"{s:.7g}")} for y, s in first]); margin = min(margin, m)
        if len(kept) >= 2 and acts:
            cases.append({"name": f"diverse-{number}", "generation": o, "inputs": kept, "outputs": outs, "margin": float(f"{margin:.3g}")})
    text = json.dumps({"versions": mf.VERSIONS, "inputs": inputs})[:-1] + ',"cases":[\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n"
    (folder / "diverse.json").write_text(text)
    print(folder.name, len(cases), "cases", len(text), "bytes", stats, flush=True)
    return len(cases)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--cases", type=int, default=8, help="cases kept per model")
    a = ap.parse_args()
    assert transformers.__version__.startswith("4.55."), transformers.__version__
    stats = {"runs": 0, "narrow": 0}
    print(sum(make(pathlib.Path(a.out) / name, a.cases, stats) for name in MODELS), "cases")
