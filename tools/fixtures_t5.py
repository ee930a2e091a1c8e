#!/usr/bin/env python3
"""Makes the T5 fixtures in tests/fixtures: tiny T5, T5 v1.1 and Flan-T5 checkpoints with what Hugging Face transformers on PyTorch does with them.

    pip install torch transformers tokenizers safetensors numpy
    python fixtures_t5.py --out tests/fixtures [--only NAME,...]

Files, rules and margins are those of make_fixtures.py, whose functions do the work. What is T5's own:

- Sources of up to 140 ids and outputs of up to 48, so that buckets beyond the exact range, and distances beyond max_distance, are met.
- A model is taken only if its ids also change, for 5 of 7 inputs, when all relative position biases are zero, and, for the 3 longest inputs that a
  16-token output can tell it of, when the biases beyond the exact range are those of the last exact bucket.
- `{i}.encoder.{l}` and `{i}.decoder.{l}`: l=0 the embeddings, l>0 the residual stream after block l, before the final norm.
- Encoders are at least as deep as decoders: transformers 5.23 sizes the decoder's cache by `num_layers`, and fails otherwise.
"""
import argparse, copy, json, math, pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

import make_fixtures as base

T5 = dict(kind="t5", V=96, positions=49, act="relu", tie=True, dtype=torch.float32, shards=1, buckets=32, distance=128, emb=0.4, bias=1.5, sharp=1.8, loud=1.0,
          gain=3.0, pad=0, start=0, lengths=[2, 5, 9, 17, 30, 44, 140], zeroed=["cross", "self", "encoder", "queries", "bias", "far"], least={"far": 3})
MODELS = {
    # T5 1.0: tied, relu; heads of 16
    "t5-base-like": T5 | dict(loud=1.5, d=32, h=2, kv=16, el=2, dl=2, f=40, gen=dict(max_new_tokens=20)),
    # v1.1 and Flan: own head without scaling, gated gelu_new, heads narrower than the model; the config as transformers 4 writes it
    "t5-gated-untied": T5 | dict(d=32, h=3, kv=8, el=2, dl=2, f=36, act="gated-gelu", tie=False, V=72, old=True, gen=dict(num_beams=4, max_length=24)),
    # everything odd: heads of 10 and wider than the model, few buckets, three layers against one, embeddings under an alias, no generation_config.json
    "t5-uneven-noconfig": T5 | dict(d=28, h=3, kv=10, el=3, dl=1, f=36, act="gated-silu", V=60, buckets=8, distance=20, alias=True, nogen=True, junk=True,
                                    gen=dict(no_repeat_ngram_size=3, num_beams=2)),
    # bf16, three shards, heads of 12, a head of its own that transformers 5 saves beside the embeddings
    "t5-head12-bf16-sharded": T5 | dict(d=40, h=4, kv=12, el=2, dl=2, f=44, act="gated-gelu", tie=False, V=80, dtype=torch.bfloat16, shards=3, buckets=12, distance=30,
                                        gen=dict(length_penalty=1.4, num_beams=3, max_new_tokens=18)),
    # f16, one head
    "t5-one-head-f16": T5 | dict(loud=1.5, sharp=3.0, d=32, h=1, kv=20, el=1, dl=1, f=40, dtype=torch.float16, V=64, gen=dict(repetition_penalty=1.2)),
}


def build(spec, seed):
    g = torch.Generator().manual_seed(seed)
    cfg = T5Config(vocab_size=spec["V"], d_model=spec["d"], d_kv=spec["kv"], d_ff=spec["f"], num_layers=spec["el"], num_decoder_layers=spec["dl"],
                   num_heads=spec["h"], relative_attention_num_buckets=spec["buckets"], relative_attention_max_distance=spec["distance"],
                   feed_forward_proj=spec["act"], tie_word_embeddings=spec["tie"], pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    model = T5ForConditionalGeneration._from_config(cfg, attn_implementation="eager")
    if not spec["tie"]: model.lm_head.weight = torch.nn.Parameter(torch.empty(spec["V"], spec["d"]))
    d, kv, f = spec["d"], spec["kv"], spec["f"]
    normal = lambda t, std: t.copy_(torch.randn(t.shape, generator=g) * std)
    for name, p in model.named_parameters():
        if "layer_norm" in name:
            p.copy_(0.5 + torch.rand(p.shape, generator=g))
            # a tied head likes the id that was fed: gains of both signs make it forget
            if "decoder.final" in name and spec["tie"]: p *= spec["gain"] * torch.randn(p.shape, generator=g).sign()
        elif "relative_attention_bias" in name: normal(p, spec["bias"])
        elif "shared" in name: normal(p, spec["emb"])
        elif "lm_head" in name: normal(p, 1.5 / math.sqrt(d))
        # scores are not divided by sqrt(d_kv): a spread of `sharp` by the weights
        elif name.endswith((".q.weight", ".k.weight")): normal(p, math.sqrt(spec["sharp"] / math.sqrt(kv) / d))
        elif name.endswith(".o.weight"): normal(p, spec["loud"] / math.sqrt(spec["h"] * kv))
        elif name.endswith(".wo.weight"): normal(p, spec["loud"] / math.sqrt(f))
        else: normal(p, 1 / math.sqrt(d))
    return model.to(spec["dtype"]).float().eval()


def zeroed(model, what):
    """A copy whose attention blocks of one kind give zeros, whose queries are zero, or whose position biases are gone, all or the far ones."""
    m = copy.deepcopy(model)
    zero = lambda mod, args, out: (torch.zeros_like(out[0]),) + tuple(out[1:])
    for block in m.decoder.block:
        if what == "self": block.layer[0].SelfAttention.register_forward_hook(zero)
        if what == "cross": block.layer[1].EncDecAttention.register_forward_hook(zero)
        if what == "queries": block.layer[0].SelfAttention.q.weight.zero_(); block.layer[1].EncDecAttention.q.weight.zero_()
    for block in m.encoder.block:
        if what == "encoder": block.layer[0].SelfAttention.register_forward_hook(zero)
    for stack, both in ((m.encoder, True), (m.decoder, False)):
        table = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        if what == "bias": table.zero_()
        if what == "far":
            n = len(table) // 2 if both else len(table)
            for first in range(0, len(table), n): table[first + n // 2:first + n] = table[first + n // 2 - 1].clone()
    return m


def save(folder, spec, model, start, eos):
    folder.mkdir(parents=True, exist_ok=True)
    gen, eos_value = dict(spec["gen"]), eos if len(eos) > 1 else eos[0]
    common = dict(eos_token_id=eos_value, pad_token_id=0, decoder_start_token_id=start)
    model.config.eos_token_id, model.config.decoder_start_token_id = eos_value, start
    model.generation_config = GenerationConfig(**common, **gen)
    out = copy.deepcopy(model).to(spec["dtype"]); out.config.dtype = spec["dtype"]
    if spec["tie"]: out.tie_weights()
    total = sum(p.numel() * p.element_size() for p in out.parameters())
    out.save_pretrained(folder, max_shard_size="10GB" if spec["shards"] == 1 else int(total / (spec["shards"] - 0.5)))
    if spec.get("alias") or spec.get("junk"):
        f = folder / "model.safetensors"; w = load_file(f)
        if spec.get("alias"): w["decoder.embed_tokens.weight"] = w.pop("shared.weight")
        if spec.get("junk"): w["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(spec["buckets"], spec["h"])
        save_file({k: v.contiguous() for k, v in w.items()}, f, metadata={"format": "pt"})
    c = json.loads((folder / "config.json").read_text())
    for k in ("id2label", "label2id", "num_labels"): c.pop(k, None)
    if spec.get("old"):
        for k in ("scale_decoder_outputs", "dense_act_fn", "is_gated_act"): c.pop(k, None)
        c["tie_word_embeddings"] = spec["tie"]
    if spec.get("nogen"):
        (folder / "generation_config.json").unlink(); c.update(common | gen)
    (folder / "config.json").write_text(json.dumps(c, indent=1, sort_keys=True) + "\n")
    for f in folder.glob("*.safetensors*"): f.chmod(0o644)


def states(folder, model, inputs, start, greedy):
    out, listed, grabbed, hooks = {}, [], {}, []
    def grab(key): return lambda mod, args, o: grabbed.__setitem__(key, (o[0] if isinstance(o, tuple) else o).detach().clone())
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        # The dropout behind the embeddings; the stack calls it again behind its final norm, which `first` leaves alone.
        def first(mod, args, o, key=f"{side}.0"): grabbed.setdefault(key, o.detach().clone())
        hooks.append(stack.dropout.register_forward_hook(first))
        hooks += [b.register_forward_hook(grab(f"{side}.{i + 1}")) for i, b in enumerate(stack.block)]
    for i in (3, 5):
        grabbed.clear()
        ids = [start] + greedy[i][:12]
        x, y = torch.tensor([inputs[i]]), torch.tensor([ids])
        logits = model(input_ids=x, attention_mask=torch.ones_like(x), use_cache=False, decoder_input_ids=y).logits
        for k, v in grabbed.items(): out[f"{i}.{k}"] = v.reshape(v.shape[-2:]).contiguous()
        out[f"{i}.logits"] = logits[0].contiguous(); listed.append({"input": i, "decoder_input_ids": ids})
    for h in hooks: h.remove()
    save_file(out, folder / "states.safetensors"); (folder / "states.safetensors").chmod(0o644)
    return listed


def handpicked(rng, encdec, eos, seen, runs, used, room):
    """Those of make_fixtures.py; plain beams and greedy make way for long outputs."""
    pool = picked(rng, encdec, eos, seen, runs, used, room)
    long = [("greedy-long", {"num_beams": 1, "max_new_tokens": 44, "min_new_tokens": 36}), ("beams-long", {"num_beams": 3, "max_new_tokens": 36, "min_new_tokens": 32})]
    return pool[:1] + long + pool[1:]


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--only", help="comma list of model names")
    ap.add_argument("--cases", type=int, default=25, help="cases kept per model")
    a = ap.parse_args()
    root = pathlib.Path(a.out); root.mkdir(parents=True, exist_ok=True)
    picked = base.handpicked
    base.build, base.zeroed, base.save, base.states, base.handpicked = build, zeroed, save, states, handpicked
    cases = size = 0; acts = {}
    for name in MODELS:
        if a.only and name not in a.only.split(","): continue
        c, s, x = base.make_model(root, name, MODELS[name], a.cases); cases += c; size += s
        for k, v in x.items(): acts[k] = acts.get(k, 0) + v
    print(f"{cases} cases, {size} bytes; cases in which an option acts: {dict(sorted(acts.items()))}")
