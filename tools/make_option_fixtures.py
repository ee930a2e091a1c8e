#!/usr/bin/env python3
"""Records what Hugging Face transformers does with further option sets on the models of make_fixtures.py, and what its warpers keep.

    pip install torch transformers safetensors numpy
    python make_option_fixtures.py --out tests/fixtures [--only NAME,...] [--cases N]      # model names, or warpers

The models are read, never rebuilt. For each of MODELS an options.json is written beside reference.json, of the same form and by the same rules:
one input at a time, float32, a second implementation in f64 that must give the same ids, no decision closer than 1e-3. Every case uses
a processor that reference.json does not, and at least one of those changes what is generated (its ids, or its score by more than 1e-3)
for one of the case's inputs; remove_invalid_values, which changes next to nothing by nature, is excepted where it comes with a ban.

option_warpers.json holds rows of logits, warper options, min_tokens_to_keep (`keep`) and the ids and probabilities that transformers' warpers leave, in the
order in which generate() runs them. A row stays only if float32 and float64 keep the same ids, also with every threshold moved by one part in 5,000.
"""
import argparse, json, math, pathlib, random

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, EpsilonLogitsWarper, EtaLogitsWarper, MinPLogitsWarper
from transformers import TemperatureLogitsWarper, TopHLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper

import make_fixtures as base

MODELS = ["bart-base-like", "bart-enc1-dec3-untied", "bart-head10-f16", "bart-alias-noconfig", "gpt2-base-like", "gpt2-one-head", "gpt2-noprefix-noconfig"]
NEW = {"sequence_bias", "encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "remove_invalid_values", "exponential_decay_length_penalty",
       "renormalize_logits"}
LENGTHS = {"num_return_sequences", "max_new_tokens", "max_length", "num_beams", "early_stopping", "length_penalty"}


def biases(rng, seen, runs, start):
    """Sequences that occur, so that their bias meets a score: of one id, of several, two with one last id."""
    found = []
    for _ in range(rng.randrange(1, 4)):
        y = rng.choice(runs); j = rng.randrange(0, max(1, len(y) - 2)); found.append([y[j:j + rng.choice([1, 1, 2, 2, 3])], rng.choice([-4.0, -2.5, -1.25, 1.5, 3.0])])
    if rng.random() < 0.4: found.append([[start, rng.choice(seen)], rng.choice([-1.5, 2.0])])
    if rng.random() < 0.4: found.append([[found[0][0][-1]], -0.75])
    return [list(pair) for pair in {tuple(ids): (ids, b) for ids, b in found if ids}.values()]


def drawn(rng, r, seen, runs, start, inputs):
    nb = rng.choice([1, 1, 1, 2, 3, 4, 5]); o = {"num_beams": nb}; chance = lambda p: rng.random() < p
    o["max_new_tokens"] = rng.randrange(6, 17)
    if nb > 1:
        if chance(0.5): o["length_penalty"] = rng.choice([-0.5, 0.0, 0.6, 2.0])
        if chance(0.5): o["early_stopping"] = rng.choice([True, False, "never"])
        if chance(0.5): o["num_return_sequences"] = rng.randrange(1, nb + 1)
    for name in rng.sample(sorted(NEW), rng.choice([1, 1, 2, 2, 3])):
        o[name] = {"sequence_bias": lambda: biases(rng, seen, runs, start),
                   "encoder_repetition_penalty": lambda: rng.choice([0.6, 0.8, 1.2, 1.5, 2.0]),
                   "encoder_no_repeat_ngram_size": lambda: rng.choice([1, 1, 2, 2, 3]),
                   "remove_invalid_values": lambda: True,
                   "exponential_decay_length_penalty": lambda: [rng.randrange(0, 6), rng.choice([1.05, 1.3, 1.8, 0.8])],
                   "renormalize_logits": lambda: True}[name]()
    if chance(0.3): o["no_repeat_ngram_size"] = rng.randrange(1, 4)
    if chance(0.3): o["repetition_penalty"] = rng.choice([0.9, 1.2, 1.6])
    if chance(0.3):      # as Marian checkpoints ban their padding id, which the search would otherwise choose
        y = rng.choice(runs); o["bad_words_ids"] = [[rng.choice(y)]]
    if chance(0.2): o["suppress_tokens"] = rng.sample(seen, 2)
    # Where remove_invalid_values has made a banned EOS finite, the decay lifts it out of float32's range.
    if chance(0.3) and not {"remove_invalid_values", "exponential_decay_length_penalty"} <= set(o): o["min_new_tokens"] = rng.randrange(2, 6)
    return o


def acting(r, inputs, case):
    """The options without which some ids, or some score by more than 1e-3, would be others."""
    acts = set(); o = case["generation"]
    for k in set(o) - LENGTHS:
        less = {j: v for j, v in o.items() if j != k}
        for i, out in zip(case["inputs"], case["outputs"]):
            other = r.second(inputs[i], less)[0]
            if [y for y, _ in other] != [y["token_ids"] for y in out] or any(abs(a - b["score"]) > 1e-3 for (_, a), b in zip(other, out)): acts.add(k); break
    return acts


def make_model(root, name, want):
    folder = root / name; spec = base.MODELS[name]
    auto = AutoModelForSeq2SeqLM if spec["kind"] == "bart" else AutoModelForCausalLM
    r = base.Runner(auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval())
    inputs = json.loads((folder / "reference.json").read_text())["inputs"]
    start = r.m32.generation_config.decoder_start_token_id if r.encdec else 0
    runs = [r.plain(x, start, nb, 14, r.m32) for x in inputs for nb in (1, 4)]
    eos = base.eos_of(r.m32.generation_config.to_dict()); seen = sorted({t for y in runs for t in y} - set(eos))
    rng = random.Random(f"options of {name}"); stats = {"runs": 0, "narrow": 0, "score": 0, "worst": 0.0, "acts": {}}; counts = {}
    cases, tried = [], 0
    while len(cases) < want and tried < 12 * want:
        tried += 1
        done = base.run_case(r, inputs, f"options-{tried}", drawn(rng, r, seen, runs, start, inputs), stats)
        if done is None: continue
        case = done[0]; acts = acting(r, inputs, case); used = NEW & set(case["generation"])
        for key in ("inputs", "outputs"): case[key] = case[key][:4]
        if not used & acts and not (used == {"remove_invalid_values"} and acts): continue
        for k in acts: counts[k] = counts.get(k, 0) + 1
        cases.append(case)
    (folder / "options.json").write_text(json.dumps({"versions": base.VERSIONS, "inputs": inputs})[:-1] + ',"cases":[\n'
                                         + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n")
    print(f"{name}: {len(cases)} cases kept of {tried}, {(folder / 'options.json').stat().st_size} bytes; acting: {dict(sorted(counts.items()))}", flush=True)
    return len(cases)


def warped(x, o, factor=1.0):
    ids, s, keep = torch.zeros(1, 1, dtype=torch.long), torch.tensor(x)[None], o["keep"]
    if o["temperature"] != 1: s = TemperatureLogitsWarper(o["temperature"])(ids, s)
    if "top_h" in o: s = TopHLogitsWarper(min(1.0, o["top_h"] * factor))(ids, s)
    if o["top_k"]: s = TopKLogitsWarper(o["top_k"], min_tokens_to_keep=keep)(ids, s)
    if "top_p" in o: s = TopPLogitsWarper(o["top_p"] * factor, min_tokens_to_keep=keep)(ids, s)
    if "min_p" in o: s = MinPLogitsWarper(min(1.0, o["min_p"] * factor), min_tokens_to_keep=keep)(ids, s)
    if "typical_p" in o: s = TypicalLogitsWarper(o["typical_p"] * factor, min_tokens_to_keep=keep)(ids, s)
    if "epsilon_cutoff" in o: s = EpsilonLogitsWarper(o["epsilon_cutoff"] * factor, min_tokens_to_keep=keep)(ids, s)
    if "eta_cutoff" in o: s = EtaLogitsWarper(o["eta_cutoff"] * factor, min_tokens_to_keep=keep)(ids, s)
    return s[0]


def make_warpers(root):
    g = np.random.default_rng(11); cases = []
    values = {"top_h": [0.2, 0.5, 0.8, 0.95], "top_p": [0.1, 0.6, 0.9], "min_p": [0.01, 0.1, 0.4, 0.9], "typical_p": [0.2, 0.5, 0.8, 0.95],
              "epsilon_cutoff": [0.002, 0.02, 0.1], "eta_cutoff": [0.003, 0.05, 0.3]}
    while len(cases) < 72:
        n = int(g.integers(40, 181)); x = np.round(g.normal(size=n) * g.choice([0.7, 1.5, 3.0]), 4).astype(np.float32)
        if g.random() < 0.25: x[g.choice(n, 10, replace=False)] = -np.inf
        if np.diff(np.sort(x[np.isfinite(x)])).min() < 1e-4 or len(set(x[np.isfinite(x)])) < 8: continue
        # Every warper alone, with one and with three that must stay; then chains of them.
        alone = list(values)[len(cases) % 6] if len(cases) < 36 else None
        o = {"temperature": float(g.choice([0.5, 1.0, 1.0, 1.6])), "top_k": 0 if alone else int(g.choice([0, 5, 30])), "keep": int(g.choice([1, 3]))}
        for name in [alone] if alone else g.choice(list(values), int(g.integers(2, 5)), replace=False): o[str(name)] = float(g.choice(values[str(name)]))
        results = [warped(x, o), warped(x.astype(np.float64), o)] + [warped(x.astype(np.float64), o, f) for f in (1 - 2e-4, 1 + 2e-4)]
        kept = [torch.isfinite(s).nonzero()[:, 0].tolist() for s in results]
        if any(k != kept[0] for k in kept) or len(kept[0]) == int(np.isfinite(x).sum()): continue
        probs = torch.softmax(results[0].double(), -1)[kept[0]].tolist()
        cases.append({"logits": [None if not np.isfinite(v) else float(f"{v:.4f}") for v in x], **o, "kept": kept[0], "probs": [float(f"{v:.7g}") for v in probs]})
    (root / "option_warpers.json").write_text(json.dumps({"versions": base.VERSIONS, "note": "a null logit is minus infinity; top_k 0 is off"})[:-1] + ',"cases":[\n'
                                              + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n")
    print("option_warpers.json", len(cases), "cases,", sum(len(c["kept"]) <= c["keep"] for c in cases), "of them kept by min_tokens_to_keep alone")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--only", help="comma list of model names, or warpers")
    ap.add_argument("--cases", type=int, default=22, help="cases kept per model")
    a = ap.parse_args()
    root = pathlib.Path(a.out); only = a.only.split(",") if a.only else MODELS + ["warpers"]
    if "warpers" in only: make_warpers(root)
    print(sum(make_model(root, name, a.cases) for name in MODELS if name in only), "cases")
