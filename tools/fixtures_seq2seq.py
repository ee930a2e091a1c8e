#!/usr/bin/env python3
"""Makes the parity fixtures of Marian, mBART, Pegasus and OPT, and of a BART whose sides differ as DistilBART's do.

    pip install torch transformers tokenizers safetensors numpy
    python fixtures_seq2seq.py --out tests/fixtures [--only NAME,...]

Files, rules of acceptance and the second implementation are those of make_fixtures.py beside this file; here are only the models, and
what they need to be made and saved. States: `{i}.encoder.0` and `{i}.decoder.0` are what the first layer gets, `l > 0` what layer `l`
leaves (for pre-norm models the residual stream, before the final norm).
"""
import argparse, copy, json, pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, MarianConfig, MarianMTModel, MBartConfig, MBartForConditionalGeneration
from transformers import OPTConfig, OPTForCausalLM, PegasusConfig, PegasusForConditionalGeneration

import make_fixtures as base

COMMON = dict(V=96, positions=48, scale=True, tie=True, bias=False, dtype=torch.float32, shards=1, std=0.25, emb=0.25)
MARIAN = COMMON | dict(kind="marian", pad=95, start=95, act="swish", share=True, emb=0.3, fc2=5.0)
MBART = COMMON | dict(kind="mbart", act="gelu", quiet=0.7)
PEGASUS = COMMON | dict(kind="pegasus", pad=0, start=0, act="relu", quiet=0.7)
OPT = COMMON | dict(kind="opt", scale=False, act="relu", before=True, biases=True, quiet=0.7)
MODELS = {
    # like opus-mt: one vocabulary, swish, the pad id banned, beams in the file
    "marian-shared": MARIAN | dict(d=32, eh=2, dh=2, el=2, dl=2, ef=48, df=48, bias=True,
                                   gen=dict(num_beams=4, bad_words_ids=[[95]], forced_eos="eos", max_length=20)),
    # two vocabularies, own head with a bias, position tables in the file
    "marian-separate": MARIAN | dict(d=40, eh=4, dh=2, el=1, dl=2, ef=36, df=48, V=80, decoder_v=72, pad=71, start=71, share=False, tie=False, act="relu", bias=True,
                                     tables=True, nogen=True, gen=dict(num_beams=2, max_length=18)),
    # odd width, heads of 15 and 9, f16, two shards, the head tied to the decoder's table only
    "marian-odd-f16-sharded": MARIAN | dict(d=45, eh=3, dh=5, el=2, dl=1, ef=40, df=36, V=70, decoder_v=90, pad=69, start=69, share=False, act="relu", dtype=torch.float16, shards=2,
                                            gen=dict(forced_eos="eos", repetition_penalty=1.1)),
    # the language id starts the output; bf16
    "mbart-cc25": MBART | dict(d=48, eh=3, dh=4, el=2, dl=2, ef=40, df=56, V=90, start=88, bias=True, dtype=torch.bfloat16, gen=dict(num_beams=3, forced_eos="eos", max_length=19)),
    # EOS starts the output, the language id is forced behind it; f16
    "mbart-50": MBART | dict(d=40, eh=2, dh=5, el=1, dl=3, ef=48, df=36, act="relu", start_is_eos=True, dtype=torch.float16, gen=dict(forced_bos_token_id=90, forced_eos="eos", max_length=18)),
    # tables in the file that are not the formula's: they count
    "pegasus-tables": PEGASUS | dict(d=32, eh=2, dh=2, el=2, dl=2, ef=48, df=40, V=90, tables="random", bias=True,
                                     gen=dict(num_beams=4, length_penalty=0.6, forced_eos="eos", max_length=18)),
    # no tables in the file, bf16, no prefix
    "pegasus-no-tables-bf16": PEGASUS | dict(d=36, eh=3, dh=2, el=1, dl=2, ef=40, df=44, V=80, emb=0.1, fc2=8.0, dtype=torch.bfloat16, noprefix=True, nogen=True, gen=dict(no_repeat_ngram_size=3)),
    "opt-prenorm": OPT | dict(d=48, h=3, l=2, f=64, dtype=torch.bfloat16, gen=dict(max_new_tokens=15)),
    # like opt-350m: post-norm, narrow embeddings, f16
    "opt-postnorm-projected": OPT | dict(d=40, w=28, h=2, l=3, f=56, before=False, quiet=0.35, V=90, dtype=torch.float16, gen=dict(num_beams=3, max_new_tokens=12, length_penalty=1.5)),
    # names without the prefix, no biases, no final norm, own head
    "opt-noprefix-nobias": OPT | dict(d=36, h=3, l=2, f=60, biases=False, final=False, tie=False, act="gelu", noprefix=True, nogen=True, V=80, gen=dict(no_repeat_ngram_size=3)),
    # like DistilBART: a deep encoder, one decoder layer, other heads and widths
    "bart-enc4-dec1": base.BART | dict(d=32, eh=4, dh=2, el=4, dl=1, ef=44, df=28, V=90, start_is_eos=True, dtype=torch.float16,
                                       gen=dict(num_beams=4, forced_bos_token_id=0, forced_eos="eos", no_repeat_ngram_size=3, early_stopping=True, max_length=18)),
}
CLASSES = {"marian": (MarianConfig, MarianMTModel), "mbart": (MBartConfig, MBartForConditionalGeneration),
           "pegasus": (PegasusConfig, PegasusForConditionalGeneration), "opt": (OPTConfig, OPTForCausalLM)}
BASE = {name: getattr(base, name) for name in ("build", "zeroed", "save", "states")}


def build(spec, seed):
    if spec["kind"] == "bart": return BASE["build"](spec, seed)
    config_class, model_class = CLASSES[spec["kind"]]
    common = dict(vocab_size=spec["V"], max_position_embeddings=spec["positions"], activation_function=spec["act"], tie_word_embeddings=spec["tie"],
                  pad_token_id=spec.get("pad", 1), eos_token_id=2)
    if spec["kind"] == "opt":
        cfg = config_class(**common, hidden_size=spec["d"], num_hidden_layers=spec["l"], num_attention_heads=spec["h"], ffn_dim=spec["f"],
                           word_embed_proj_dim=spec.get("w", spec["d"]), do_layer_norm_before=spec["before"], enable_bias=spec["biases"],
                           _remove_final_layer_norm=not spec.get("final", True), bos_token_id=2)
    else:
        own = dict(share_encoder_decoder_embeddings=spec["share"], decoder_vocab_size=spec.get("decoder_v")) if spec["kind"] == "marian" else {}
        cfg = config_class(**common, **own, d_model=spec["d"], encoder_layers=spec["el"], decoder_layers=spec["dl"], encoder_attention_heads=spec["eh"],
                           decoder_attention_heads=spec["dh"], encoder_ffn_dim=spec["ef"], decoder_ffn_dim=spec["df"], scale_embedding=spec["scale"],
                           decoder_start_token_id=spec.get("start", 2), forced_eos_token_id=None)
    model = base.spread(model_class._from_config(cfg, attn_implementation="eager"), spec, seed)
    if spec["kind"] in ("marian", "pegasus") and spec.get("tables") != "random":
        stacks = (model.model.encoder, model.model.decoder)
        for stack in stacks: amplify(stack, spec)
        model.to(spec["dtype"]).float()
        for stack in stacks: stack.embed_positions.weight.copy_(stack.embed_positions.create_weight())      # computed in f32, whatever the file's dtype
    return model


class Runner(base.Runner):
    """generate() of transformers 5.23.0 cuts the candidates of beams by `config.vocab_size`, which is the encoder's where there are two vocabularies, and then fails:
    the model that it runs on gets the decoder's."""

    def __init__(self, model):
        separate = getattr(model.config, "share_encoder_decoder_embeddings", True) is False
        super().__init__(copy.deepcopy(model) if separate else model)
        if separate: self.m32.config.vocab_size = self.m32.config.decoder_vocab_size


def amplify(stack, spec):
    """Most columns of a computed position table hardly change over 20 positions, and a tied head likes to repeat the id that it is fed. So the norms are louder in
    the columns that change, and the feed-forward blocks are louder than what they are added to."""
    half, fast = (spec["d"] + 1) // 2, spec["d"] // 8
    for layer in stack.layers:
        for norm in (layer.self_attn_layer_norm, getattr(layer, "encoder_attn_layer_norm", None)):
            if norm is not None:
                for first in (0, half): norm.weight[first:first + fast] *= 4
        layer.fc2.weight *= spec["fc2"]


def zeroed(model, what):
    if model.config.model_type != "opt": return BASE["zeroed"](model, what)
    m = copy.deepcopy(model)
    for layer in m.model.decoder.layers:
        if what == "self": layer.self_attn.register_forward_hook(lambda mod, args, out: (torch.zeros_like(out[0]),) + tuple(out[1:]))
        if what == "queries":
            layer.self_attn.q_proj.weight.zero_()
            if layer.self_attn.q_proj.bias is not None: layer.self_attn.q_proj.bias.zero_()
    return m


def save(folder, spec, model, start, eos):
    if spec["kind"] == "bart": return BASE["save"](folder, spec, model, start, eos)
    folder.mkdir(parents=True, exist_ok=True)
    gen, cfg, encdec = dict(spec["gen"]), model.config, model.config.is_encoder_decoder
    if gen.pop("forced_eos", None): gen["forced_eos_token_id"] = eos[0]
    cfg.eos_token_id = eos[0]
    if encdec: cfg.decoder_start_token_id = gen["decoder_start_token_id"] = start
    model.generation_config = GenerationConfig(eos_token_id=eos[0], pad_token_id=spec.get("pad", 1), **gen)
    out = copy.deepcopy(model).to(spec["dtype"]); out.config.dtype = spec["dtype"]
    total = sum(p.numel() * p.element_size() for p in out.parameters())
    out.save_pretrained(folder, max_shard_size="10GB" if spec["shards"] == 1 else int(total / (spec["shards"] - 0.5)))
    file = folder / "model.safetensors"
    if file.exists():
        w = {k: v for k, v in load_file(file).items() if not k.endswith("embed_positions.weight") or spec["kind"] in ("mbart", "opt") or spec.get("tables")}
        if spec.get("tables") and spec["kind"] == "marian":                               # as old files have them
            for side, stack in (("encoder", out.model.encoder), ("decoder", out.model.decoder)): w[f"model.{side}.embed_positions.weight"] = stack.embed_positions.weight
        if spec.get("noprefix"): w = {k.removeprefix("model."): v for k, v in w.items()}
        save_file({k: v.contiguous() for k, v in w.items()}, file, metadata={"format": "pt"})
    c = json.loads((folder / "config.json").read_text())
    for k in ("id2label", "label2id", "num_labels"): c.pop(k, None)
    if encdec: c["forced_eos_token_id"] = gen.get("forced_eos_token_id")
    if spec.get("nogen"):
        (folder / "generation_config.json").unlink(); c.update(gen)
    (folder / "config.json").write_text(json.dumps(c, indent=1, sort_keys=True) + "\n")
    for f in folder.glob("*.safetensors*"): f.chmod(0o644)


def states(folder, model, inputs, start, greedy):
    """What the first layer gets takes the place of the embedding norm's output, which these models lack or have as the same."""
    if model.config.model_type == "bart": return BASE["states"](folder, model, inputs, start, greedy)
    out, listed, seen = {}, [], {}
    encdec = model.config.is_encoder_decoder

    def keep(key, x): seen[key] = x.detach().clone().reshape(x.shape[-2:])
    hooks = []
    for side in (("encoder", "decoder") if encdec else ("decoder",)):
        layers = getattr(model.model, side).layers
        hooks.append(layers[0].register_forward_pre_hook(lambda mod, args, side=side: keep(f"{side}.0", args[0])))
        for i, layer in enumerate(layers):
            hooks.append(layer.register_forward_hook(lambda mod, args, o, key=f"{side}.{i + 1}": keep(key, o[0] if isinstance(o, tuple) else o)))
    for i in (3, 5):
        x, kw, entry = torch.tensor([inputs[i]]), {}, {"input": i}
        if encdec:
            entry["decoder_input_ids"] = [start] + greedy[i][:5]; kw["decoder_input_ids"] = torch.tensor([entry["decoder_input_ids"]])
        logits = model(input_ids=x, attention_mask=torch.ones_like(x), use_cache=False, **kw).logits
        for k, v in seen.items(): out[f"{i}.{k}"] = v.contiguous()
        out[f"{i}.logits"] = logits[0].contiguous(); listed.append(entry)
    for h in hooks: h.remove()
    save_file(out, folder / "states.safetensors"); (folder / "states.safetensors").chmod(0o644)
    return listed


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--only", help="comma list of model names")
    ap.add_argument("--cases", type=int, default=22, help="cases kept per model")
    a = ap.parse_args()
    base.build, base.zeroed, base.save, base.states, base.Runner = build, zeroed, save, states, Runner  # the loop of make_fixtures.py, with these models
    root = pathlib.Path(a.out); root.mkdir(parents=True, exist_ok=True)
    cases = size = 0; acts = {}
    for name in a.only.split(",") if a.only else MODELS:
        c, s, x = base.make_model(root, name, MODELS[name], a.cases); cases += c; size += s
        for k, v in x.items(): acts[k] = acts.get(k, 0) + v
    print(f"{cases} cases, {size} bytes; cases in which an option acts: {dict(sorted(acts.items()))}")
