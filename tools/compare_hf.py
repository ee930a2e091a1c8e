#!/usr/bin/env python3
"""Compares elgen with Hugging Face transformers on a checkpoint of your own: same token ids, same scores?

    pip install torch transformers tokenizers safetensors sentencepiece
    python compare_hf.py path/to/checkpoint --elgen target/release/elgen
    python compare_hf.py path/to/checkpoint --sentences texts.txt --num-beams 5 --attention el,mha

One text a line (default: the English side of demo/bart-eng-fra/test.tsv, the first 100). transformers runs in float32 on the CPU, one text
at a time: that is elgen's definition of a right result. elgen runs once per attention kind, with --dtype f32. Texts that
transformers and elgen tokenise differently are reported as such. Near ties are possible in float32: where transformers itself scores elgen's
tokens and its own within 1e-4 of each other (without processors) the difference is called a near tie, and 2 in 1,000 texts (1 at least) are let pass. Exit code: 0 equal, 1 different, 2 could not run.
"""
import argparse, json, pathlib, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ap = argparse.ArgumentParser()
ap.add_argument("model", help="a local Hugging Face checkpoint directory")
ap.add_argument("--elgen", default=str(ROOT / "target/release/elgen"))
ap.add_argument("--sentences", help="a text a line")
ap.add_argument("--count", type=int, default=100)
ap.add_argument("--num-beams", type=int, default=4)
ap.add_argument("--max-new-tokens", type=int, help="default: what the model's generation config says")
ap.add_argument("--attention", default="mha,el")
ap.add_argument("--device", help="passed to elgen")
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--show", type=int, default=5, help="differences printed per attention kind")
a = ap.parse_args()

if a.sentences:
    texts = pathlib.Path(a.sentences).read_text(encoding="utf8").splitlines()
else:
    texts = [l.split("\t")[0] for l in (ROOT / "demo/bart-eng-fra/test.tsv").read_text(encoding="utf8").splitlines()]
texts = [t for t in texts if t.strip()][:a.count]

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

torch.set_num_threads(a.threads); torch.set_grad_enabled(False)
seq2seq = AutoConfig.from_pretrained(a.model).is_encoder_decoder
model = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(a.model, dtype=torch.float32).eval()
tok = AutoTokenizer.from_pretrained(a.model)
eos = model.generation_config.eos_token_id
eos = [] if eos is None else eos if isinstance(eos, list) else [eos]
options = {"num_beams": a.num_beams, "do_sample": False} | ({"max_new_tokens": a.max_new_tokens} if a.max_new_tokens else {})

expected = []
for i, t in enumerate(texts):
    x = tok(t, return_tensors="pt")["input_ids"]
    r = model.generate(input_ids=x, attention_mask=torch.ones_like(x), return_dict_in_generate=True, output_scores=True, **options)
    new = r.sequences[0, 1 if seq2seq else x.shape[1]:].tolist()
    new = new[:next((j + 1 for j, y in enumerate(new) if y in eos), len(new))]
    if a.num_beams > 1: score = r.sequences_scores[0].item()
    else: score = model.compute_transition_scores(r.sequences, r.scores, normalize_logits=True)[0][:len(new)].sum().item()
    expected.append((x[0].tolist(), new, score))
    if sys.stderr.isatty(): print(f"\rtransformers {i + 1}/{len(texts)}", end="", file=sys.stderr)
if sys.stderr.isatty(): print(file=sys.stderr)


def elgen(records, attention):
    with tempfile.TemporaryDirectory() as d:
        f = pathlib.Path(d) / "in.jsonl"
        f.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf8")
        cmd = [a.elgen, "generate", "--model", a.model, "--input", str(f), "--format", "jsonl", "--num-beams", str(a.num_beams), "--do-sample=false",
               "--attention", attention, "--dtype", "f32"]
        if a.max_new_tokens: cmd += ["--max-new-tokens", str(a.max_new_tokens)]
        if a.device: cmd += ["--device", a.device]
        p = subprocess.run(cmd, stdout=subprocess.PIPE, encoding="utf8")
        out = [json.loads(l) for l in p.stdout.splitlines() if l.strip()]
        if len(out) != len(records):
            print(f"elgen gave {len(out)} lines for {len(records)} texts (exit code {p.returncode}): {' '.join(cmd)}"); sys.exit(2)
        return out


def own_score(src, ids):
    """What transformers thinks of these new ids: mean (beams) or sum of log-probabilities, no processors."""
    if seq2seq:
        start = model.generation_config.decoder_start_token_id or model.config.decoder_start_token_id or 0
        logits = model(input_ids=torch.tensor([src]), decoder_input_ids=torch.tensor([[start] + ids[:-1]])).logits[0]
    else: logits = model(torch.tensor([src + ids[:-1]])).logits[0, len(src) - 1:]
    lp = torch.log_softmax(logits.double(), -1)[range(len(ids)), ids].sum().item()
    penalty = model.generation_config.length_penalty
    return lp / len(ids) ** ((1.0 if penalty is None else penalty) if a.num_beams > 1 else 0)


bad = False
for attention in a.attention.split(","):
    got = elgen([{"id": i, "text": t} for i, t in enumerate(texts)], attention)
    same = near = 0; worst = 0.0; shown = []; redo = []
    for i, ((src, ids, score), g) in enumerate(zip(expected, got)):
        if "error" in g: shown.append(f"{i}: error: {g['error']}"); continue
        if g.get("prompt_tokens", len(src)) != len(src): redo.append(i); continue
        s = g["sequences"][0]; gap = abs(s["score"] - score) / max(1.0, abs(score))
        if s["token_ids"] == ids:
            worst = max(worst, gap)
            if gap <= 1e-3: same += 1
            else: shown.append(f"{i}: same ids, score {s['score']} instead of {score}")
        else:
            mine, theirs = own_score(src, ids), own_score(src, s["token_ids"])
            tie = abs(mine - theirs) <= 1e-4 * max(1.0, abs(mine)); near += tie
            shown.append(f"{i}: {'near tie: ' if tie else ''}{texts[i]!r}\n   transformers {score:.6f} {ids}\n   elgen        {s['score']:.6f} {s['token_ids']}")
    if redo:                                    # another tokenisation: is the model right on transformers' ids at least?
        again = elgen([{"id": i, "input_ids": expected[i][0]} for i in redo], attention)
        right = sum("error" not in g and g["sequences"][0]["token_ids"] == expected[i][1] for i, g in zip(redo, again))
        shown.append(f"{len(redo)} texts are tokenised differently (first: {texts[redo[0]]!r}); given transformers' ids, {right} of them come out equal")
    ok = same == len(texts) or (same + near == len(texts) and near <= max(1, 2 * len(texts) // 1000))
    bad |= not ok
    print(f"{attention}: {same} of {len(texts)} equal, {near} near ties, largest relative score difference {worst:.1e}: {'equal' if ok else 'DIFFERENT'}")
    for l in shown[:a.show]: print("  " + l)
sys.exit(1 if bad else 0)
