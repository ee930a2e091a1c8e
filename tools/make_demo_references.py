#!/usr/bin/env python3
"""Writes reference.jsonl into a demo model's directory: what Hugging Face transformers on PyTorch gives, float32, one text at a time.

    pip install torch transformers tokenizers safetensors
    python make_demo_references.py demo/bart-eng-fra demo/gpt2-stories

bart-eng-fra: for every sentence of test.tsv one line {"token_ids": [...], "score": s}, the model's own generation config (4 beams).
  token_ids: the new ids after the decoder start token, the forced BOS and the EOS included; score: HF's sequences_scores.
gpt2-stories: for every line of prompts.txt one line {"input_ids": [...], "greedy": {"token_ids", "score"}, "beam": {"token_ids", "score"}},
  40 new tokens at most, greedy and 4 beams; the greedy score is the sum of the log-probabilities of the new tokens.
Versions go to reference.versions.json. The f16 weights are widened to f32 before anything is computed.
"""
import argparse, json, pathlib, platform

import torch, transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("models", nargs="+")
ap.add_argument("--threads", type=int, default=1)
a = ap.parse_args()
torch.set_num_threads(a.threads)


def cut(ids, eos):
    return ids[:ids.index(eos) + 1] if eos in ids else ids


def run(model, x, skip, beams, **kw):
    with torch.no_grad():
        r = model.generate(input_ids=x, attention_mask=torch.ones_like(x), num_beams=beams, return_dict_in_generate=True, output_scores=True, **kw)
    ids = cut(r.sequences[0, skip:].tolist(), model.generation_config.eos_token_id)
    if beams > 1: return {"token_ids": ids, "score": round(r.sequences_scores[0].item(), 6)}
    lp = model.compute_transition_scores(r.sequences, r.scores, normalize_logits=True)[0][:len(ids)]
    return {"token_ids": ids, "score": round(lp.sum().item(), 5)}


for folder in map(pathlib.Path, a.models):
    seq2seq = json.loads((folder / "config.json").read_text())["is_encoder_decoder"] if "is_encoder_decoder" in (folder / "config.json").read_text() else False
    model = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32).eval()
    tok = AutoTokenizer.from_pretrained(folder)
    lines = []
    if seq2seq:
        for l in (folder / "test.tsv").read_text(encoding="utf8").splitlines():
            lines.append(run(model, tok(l.split("\t")[0], return_tensors="pt")["input_ids"], 1, model.generation_config.num_beams))
    else:
        for l in (folder / "prompts.txt").read_text(encoding="utf8").splitlines():
            x = tok(l, return_tensors="pt")["input_ids"]
            lines.append({"input_ids": x[0].tolist(), "greedy": run(model, x, x.shape[1], 1, max_new_tokens=40),
                          "beam": run(model, x, x.shape[1], 4, max_new_tokens=40)})
    (folder / "reference.jsonl").write_text("".join(json.dumps(l, separators=(",", ":")) + "\n" for l in lines))
    (folder / "reference.versions.json").write_text(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__,
                                                               "python": platform.python_version()}) + "\n")
    print(folder, len(lines), "lines")
