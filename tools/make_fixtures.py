#!/usr/bin/env python3
"""Makes the parity fixtures in tests/fixtures: tiny BART and GPT-2 checkpoints with what Hugging Face transformers on PyTorch does with them.

    pip install torch transformers tokenizers safetensors numpy
    python make_fixtures.py --out tests/fixtures [--only NAME,...]        # models, warpers, tokenizers

Nothing here is needed to build or test elgen: the fixtures are committed.

A model directory is a Hugging Face checkpoint plus
  reference.json     {"versions", "inputs": [[ids]], "states": [{"input", "decoder_input_ids"?}], "cases": [case]}
  states.safetensors hidden states and logits in f32 for the inputs named in "states"
case = {"name", "generation": options set on top of the model's own generation config, "inputs": [input indices],
        "outputs": [per input [{"token_ids", "score"}] ], "margin": smallest margin}.
  inputs      encoder ids (BART) or prompts (GPT-2); every one is run alone, with a mask of ones, in float32.
  token_ids   new ids after the decoder start token or prompt, up to and including the EOS.
  score       beams: HF's sequences_scores; greedy: sum of the log-softmax of the processed scores at the new ids.

They are made so that they can fail. Weights have a large spread (with the usual init of 0.02 a random model ignores its attention),
biases and norm gains are random, and a model (a seed) is taken only if, for at least 5 of its 7 inputs, the plain 16-token greedy run and
the plain 16-token 4-beam run both hold 6 or more distinct ids, and if both change for at least 5 inputs when
(a) cross-attention, (b) decoder self-attention, (c) encoder self-attention is replaced by zeros, and (d) when queries are zero (uniform
attention). EOS is an id chosen afterwards, one that ends some runs early and others not.

Margins. Every run is repeated by a second implementation (`search` below: plain loops in f64 on the f64 model, no cache, no batching) that
must give HF's float32 ids; it measures every comparison that decides something, at least one side of which is finite and above -1e8:
greedy: best against second; beams: each neighbouring pair among the best K+1 candidates (hence ranks nb/nb+1 and K/K+1 too), each
neighbouring pair among the best nb+1 finished hypotheses, and the stop test `best > worst`. An input stays in a case only if its smallest
margin exceeds 1e-3 and no returned hypothesis is a leftover near -1e9; a case needs two inputs. If the ids differ although the margin
is healthy, the script stops: then one of the two implementations is wrong.

States: BART `{i}.encoder.{l}` and `{i}.decoder.{l}`, l=0 after layernorm_embedding, l>0 after layer l (for the decoder on the teacher-forced
decoder_input_ids), `{i}.logits`. GPT-2 `{i}.decoder.{l}`, l=0 token plus position embedding, l>0 after block l (residual stream, before
ln_f, the last one included, unlike HF's hidden_states whose last entry is after ln_f), `{i}.final` after ln_f, `{i}.logits`.
"""
import argparse, copy, json, math, pathlib, platform, random, shutil, sys, time, warnings

import numpy as np
import torch, transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BartConfig, BartForConditionalGeneration, GenerationConfig
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1); torch.set_grad_enabled(False); warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()}
MIN_MARGIN, NEG = 1e-3, -1e9

# ---------------------------------------------------------------- the second implementation


def eos_of(o): e = o.get("eos_token_id"); return [] if e is None else e if isinstance(e, list) else [e]


def process(s, o, seq, P, source=()):
    """The logits processors, in HF's order, on one row. s: f64 [V]; o: effective options; seq: ids so far, prompt included; P: prompt length;
    source: the encoder's ids, or a decoder-only model's prompt."""
    s = s.copy(); n = len(seq); eos = eos_of(o); inf = -np.inf; source = list(source)
    if o.get("sequence_bias"):
        bias = np.zeros_like(s)
        for ids, b in {tuple(ids): b for ids, b in o["sequence_bias"]}.items():
            if n >= len(ids) - 1 and (len(ids) == 1 or tuple(seq[n - len(ids) + 1:]) == ids[:-1]): bias[ids[-1]] += b
        s += bias
    p = o.get("encoder_repetition_penalty") or 1.0
    if p != 1.0:
        for t in set(source): s[t] = s[t] / p if s[t] < 0 else s[t] * p
    p = o.get("repetition_penalty") or 1.0
    if p != 1.0:
        for t in set(seq): s[t] = s[t] * p if s[t] < 0 else s[t] / p
    k = o.get("no_repeat_ngram_size") or 0
    if k > 0 and n >= k:
        tail = seq[n - k + 1:] if k > 1 else []
        for i in range(n - k + 1):
            if seq[i:i + k - 1] == tail: s[seq[i + k - 1]] = inf
    k = o.get("encoder_no_repeat_ngram_size") or 0
    if k > 0 and n >= k - 1:
        tail = seq[n - k + 1:] if k > 1 else []
        for i in range(len(source) - k + 1):
            if source[i:i + k - 1] == tail: s[source[i + k - 1]] = inf
    for w in o.get("bad_words_ids") or []:
        if len(w) == 1 and w[0] in eos: continue
        if n >= len(w) - 1 and seq[n - len(w) + 1:] == w[:-1] or len(w) == 1: s[w[-1]] = inf
    if n < (o.get("min_length") or 0): s[eos] = inf
    if n - P < (o.get("min_new_tokens") or 0): s[eos] = inf
    if o.get("forced_bos_token_id") is not None and n == 1: s[:] = inf; s[o["forced_bos_token_id"]] = 0
    f = o.get("forced_eos_token_id")
    if f is not None and n == o["max_length"] - 1: s[:] = inf; s[f] = 0
    if o.get("remove_invalid_values"):
        top = float(np.finfo(np.float32).max); s[np.isnan(s)] = 0; s[s == np.inf] = top; s[s == -np.inf] = -top
    if o.get("exponential_decay_length_penalty"):
        start, factor = o["exponential_decay_length_penalty"]
        if n > start + P:
            for e in eos:
                if np.isfinite(s[e]): s[e] += abs(s[e]) * (factor ** (n - start - P) - 1)
    s[o.get("suppress_tokens") or []] = inf
    if n == (P + 1 if P == 1 and o.get("forced_bos_token_id") is not None else P): s[o.get("begin_suppress_tokens") or []] = inf
    return log_softmax(s) if o.get("renormalize_logits") else s


def log_softmax(x): m = x.max(-1, keepdims=True); return x - m - np.log(np.exp(x - m).sum(-1, keepdims=True))


class Margin:
    def __init__(self): self.value = math.inf
    def pair(self, a, b):
        if max(a, b) > -1e8 and np.isfinite(max(a, b)): self.value = min(self.value, abs(a - b))
    def chain(self, xs):
        for a, b in zip(xs, xs[1:]): self.pair(a, b)


def search(step, prompt, o, source=()):
    """Greedy or beam search over step(list of id lists) -> f64 logits [rows, V]. Returns ([(new ids, score)], smallest margin)."""
    P, nb, eos, m = len(prompt), o.get("num_beams") or 1, eos_of(o), Margin()
    if nb == 1:
        seq, score = list(prompt), 0.0
        while len(seq) < o["max_length"]:
            s = process(step([seq])[0], o, seq, P, source)
            t = int(s.argmax()); m.chain(np.sort(s)[::-1][:2]); score += float(log_softmax(s)[t]); seq.append(t)
            if t in eos: break
        return [(seq[P:], score)], m.value
    K, lp, early = max(2, 1 + len(eos)) * nb, o.get("length_penalty", 1.0), o.get("early_stopping", False)
    run = [(list(prompt), 0.0 if b == 0 else NEG) for b in range(nb)]
    fin, is_open = [(NEG, None, False)] * nb, True
    while True:
        n = len(run[0][0])
        logp = log_softmax(step([r[0] for r in run]))
        total = np.stack([process(logp[b], o, run[b][0], P, source) + run[b][1] for b in range(nb)]).ravel(); V = logp.shape[1]
        rank = np.argsort(-total, kind="stable")
        m.chain(total[rank[:K + 1]])
        cand = [(float(total[i]), run[i // V][0] + [int(i % V)]) for i in rank[:K]]
        hit = [c[1][-1] in eos or n + 1 >= o["max_length"] for c in cand]
        full = all(f[2] for f in fin)
        pool = list(fin)
        for r, (sc, ids) in enumerate(cand):
            ok = hit[r] and r < nb and is_open and not (full and early is True)
            pool.append((sc / (n + 1 - P) ** lp + (0 if ok else NEG), ids, bool(hit[r] and r < nb)))
        fin_new = sorted(pool, key=lambda f: -f[0])
        m.chain([f[0] for f in fin_new[:nb + 1]]); fin = fin_new[:nb]
        order = sorted(range(len(cand)), key=lambda r: -(cand[r][0] + (NEG if hit[r] else 0)))[:nb]
        run = [(cand[r][1], cand[r][0] + (NEG if hit[r] else 0)) for r in order]
        n += 1
        L = o["max_length"] - P if early == "never" and lp > 0 else n - P
        best, worst = run[0][1] / L ** lp, min(f[0] for f in fin)
        if is_open and best > -1e8:
            for f in fin:
                if f[2]: m.pair(best, worst)
        is_open = is_open and any(best > (worst if f[2] else NEG) for f in fin)
        if not is_open or (early is True and all(f[2] for f in fin)) or all(hit): break
    return [(f[1][P:] if f[1] else [], f[0]) for f in fin[:o.get("num_return_sequences") or 1]], m.value


# ---------------------------------------------------------------- a model and its two runs


def positions(model):
    """Ids that the position tables allow; models with relative positions allow any number."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


class Runner:
    def __init__(self, model):
        self.m32, self.m64 = model.float(), copy.deepcopy(model).double()
        self.encdec = model.config.is_encoder_decoder; self.cache = {}

    def stepper(self, ids, model=None):
        model = model or self.m64
        dt = next(model.parameters()).dtype
        if not self.encdec: return lambda rows: model(torch.tensor(rows), use_cache=False).logits[:, -1].double().numpy()
        enc = model.get_encoder()(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).last_hidden_state

        def step(rows):
            e = transformers.modeling_outputs.BaseModelOutput(last_hidden_state=enc.expand(len(rows), -1, -1).to(dt))
            return model(encoder_outputs=e, attention_mask=torch.ones(len(rows), len(ids), dtype=torch.long), decoder_input_ids=torch.tensor(rows),
                         use_cache=False).logits[:, -1].double().numpy()
        return step

    def effective(self, kw, ids):
        """The model's own generation config under the call's options, with the length rules."""
        o = {k: v for k, v in self.m32.generation_config.to_dict().items() if v is not None}; o.update(kw)
        prompt = [o["decoder_start_token_id"]] if self.encdec else list(ids)
        if o.get("max_new_tokens"): o["max_length"] = o["max_new_tokens"] + len(prompt)
        if o.get("max_length") is None: o["max_length"] = min(20 + len(prompt), positions(self.m32))
        if o.get("min_new_tokens"): o["min_length"] = o["min_new_tokens"] + len(prompt)
        return o, prompt

    def plain(self, ids, start, nb, n, model=None):
        prompt = [start] if self.encdec else list(ids)
        return search(self.stepper(ids, model), prompt, {"num_beams": nb, "max_length": len(prompt) + n})[0][0][0]

    def second(self, ids, kw):
        o, prompt = self.effective(kw, ids)
        return search(self.stepper(ids), prompt, o, ids)

    def first(self, ids, kw):
        o, prompt = self.effective(kw, ids)
        x = torch.tensor([ids])
        r = self.m32.generate(input_ids=x, attention_mask=torch.ones_like(x), return_dict_in_generate=True, output_scores=True, **kw)
        out = []
        for j in range(r.sequences.shape[0]):
            new, eos = r.sequences[j, len(prompt):].tolist(), eos_of(o)
            end = next((i + 1 for i, t in enumerate(new) if t in eos), len(new)); new = new[:end]
            if (o.get("num_beams") or 1) > 1: score = r.sequences_scores[j].item()
            else: score = self.m32.compute_transition_scores(r.sequences, r.scores, normalize_logits=True)[j][:end].double().sum().item()
            out.append((new, score))
        return out


def zeroed(model, what):
    """A copy whose attention blocks of one kind give zeros, or whose queries are zero."""
    m = copy.deepcopy(model)
    zero = lambda mod, args, out: (torch.zeros_like(out[0]),) + tuple(out[1:])
    if m.config.is_encoder_decoder:
        for l in m.model.decoder.layers:
            if what == "cross": l.encoder_attn.register_forward_hook(zero)
            if what == "self": l.self_attn.register_forward_hook(zero)
            if what == "queries":
                for a in (l.self_attn, l.encoder_attn): a.q_proj.weight.zero_(); a.q_proj.bias.zero_()
        for l in m.model.encoder.layers:
            if what == "encoder": l.self_attn.register_forward_hook(zero)
    else:
        for l in m.transformer.h:
            if what == "self": l.attn.register_forward_hook(zero)
            if what == "queries": d = m.config.n_embd; l.attn.c_attn.weight[:, :d] = 0; l.attn.c_attn.bias[:d] = 0
    return m


# ---------------------------------------------------------------- the models

BART = dict(kind="bart", V=96, positions=48, act="gelu", scale=False, tie=True, bias=False, dtype=torch.float32, shards=1, std=0.25, emb=0.3, start_is_eos=False)
GPT2 = dict(kind="gpt2", V=96, positions=48, act="gelu_new", tie=True, dtype=torch.float32, shards=1, std=0.25, emb=0.3, f=None, scale_weights=True, inverse=False)
MODELS = {
    # head 16, two heads, plain
    "bart-base-like": BART | dict(d=32, eh=2, dh=2, el=2, dl=2, ef=48, df=64, start_is_eos=True,
                                  gen=dict(num_beams=4, forced_bos_token_id=0, forced_eos="eos", no_repeat_ngram_size=3, early_stopping=True, max_length=20)),
    # encoder heads of 32, decoder heads of 16, three layers against one, relu, scaled embeddings
    # one head of 64 on both sides
    "bart-one-head": BART | dict(d=64, eh=1, dh=1, el=1, dl=1, ef=64, df=48, std=0.2, bias=True, gen=dict(length_penalty=2.0, min_length=5, max_length=18, num_beams=3)),
    # heads of 12 and 18, one layer against three, own head matrix
    "bart-enc1-dec3-untied": BART | dict(d=36, eh=3, dh=2, el=1, dl=3, ef=50, df=44, act="gelu_new", tie=False, std=0.3, V=70, gen=dict()),
    # eight heads of 10 (no multiple of 4), f16 file
    "bart-head10-f16": BART | dict(d=80, eh=8, dh=8, el=1, dl=1, ef=24, df=36, act="swish", dtype=torch.float16, std=0.2, V=64, start_is_eos=True,
                                   gen=dict(forced_bos_token_id=3, forced_eos="eos", max_new_tokens=14)),
    # heads of 20 and 10, bias on the logits, three shards
    "bart-head20-sharded": BART | dict(d=40, eh=2, dh=4, el=2, dl=2, ef=50, df=60, bias=True, shards=3, V=90, scale=True, emb=0.2, gen=dict(num_beams=2, max_length=16)),
    # eight heads of 16, bf16 file without the prefix, with leftovers of old files
    "bart-noprefix-bf16": BART | dict(d=128, eh=8, dh=8, el=1, dl=1, ef=32, df=40, dtype=torch.bfloat16, std=0.2, V=60, positions=40, noprefix=True, junk=True,
                                      bias=True, gen=dict(forced_eos="eos", repetition_penalty=1.2)),
    # embedding under an alias name, no generation_config.json
    "bart-alias-noconfig": BART | dict(d=48, eh=3, dh=3, el=1, dl=2, ef=40, df=52, act="relu", alias=True, nogen=True, V=100, start_is_eos=True,
                                       gen=dict(num_beams=3, length_penalty=0.5, no_repeat_ngram_size=2, max_length=17, min_length=4, forced_eos="eos")),
    "gpt2-base-like": GPT2 | dict(d=48, h=3, l=2, gen=dict(max_new_tokens=16)),
    # one head of 64, n_inner, scale by inverse layer index
    "gpt2-one-head": GPT2 | dict(d=64, h=1, l=2, f=72, act="relu", inverse=True, std=0.2, V=80, gen=dict()),
    # heads of 12, own head matrix
    "gpt2-head12-untied": GPT2 | dict(d=36, h=3, l=3, f=60, act="gelu", tie=False, std=0.3, V=70, gen=dict(num_beams=3, max_new_tokens=12, length_penalty=1.5)),
    # eight heads of 10, no 1/sqrt, f16, two shards
    "gpt2-head10-f16-sharded": GPT2 | dict(d=80, h=8, l=2, f=64, dtype=torch.float16, shards=2, scale_weights=False, std=0.2, qk=0.12, V=64, gen=dict(repetition_penalty=1.1)),
    # heads of 20, no prefix, the old buffers, no generation_config.json
    "gpt2-noprefix-noconfig": GPT2 | dict(d=40, h=2, l=2, f=64, act="swish", noprefix=True, junk=True, nogen=True, V=100, gen=dict(no_repeat_ngram_size=3)),
    # heads of 32, bf16, scale by inverse layer index, two EOS ids
    "gpt2-head32-bf16": GPT2 | dict(d=64, h=2, l=3, f=100, dtype=torch.bfloat16, inverse=True, std=0.2, V=90, two_eos=True, gen=dict(max_new_tokens=15)),
}
LENGTHS = [1, 2, 5, 8, 11, 16, 21]


def build(spec, seed):
    if spec["kind"] == "bart":
        cfg = BartConfig(vocab_size=spec["V"], d_model=spec["d"], encoder_layers=spec["el"], decoder_layers=spec["dl"], encoder_attention_heads=spec["eh"],
                         decoder_attention_heads=spec["dh"], encoder_ffn_dim=spec["ef"], decoder_ffn_dim=spec["df"], max_position_embeddings=spec["positions"],
                         activation_function=spec["act"], scale_embedding=spec["scale"], tie_word_embeddings=spec["tie"], pad_token_id=1, bos_token_id=0,
                         eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None)
        model = BartForConditionalGeneration._from_config(cfg, attn_implementation="eager")
    else:
        cfg = GPT2Config(vocab_size=spec["V"], n_embd=spec["d"], n_layer=spec["l"], n_head=spec["h"], n_inner=spec["f"], n_positions=spec["positions"],
                         activation_function=spec["act"], scale_attn_weights=spec["scale_weights"], scale_attn_by_inverse_layer_idx=spec["inverse"],
                         tie_word_embeddings=spec["tie"], bos_token_id=0, eos_token_id=2, pad_token_id=1)
        model = GPT2LMHeadModel._from_config(cfg, attn_implementation="eager")
    return spread(model, spec, seed)


def spread(model, spec, seed):
    """Random weights by the rules above, rounded to the file's dtype."""
    g = torch.Generator().manual_seed(seed)
    normal = lambda t, std: t.copy_(torch.randn(t.shape, generator=g) * std)
    for name, p in model.named_parameters():
        norm = "norm" in name or "ln_" in name
        if norm and name.endswith("weight"): p.copy_(0.5 + torch.rand(p.shape, generator=g))
        elif name.endswith("bias"): normal(p, 0.1 if norm else 0.2)
        elif "embed_positions" in name: normal(p, spec["emb"] * spec.get("pos", 4.0) * (math.sqrt(spec["d"]) if spec["scale"] else 1))
        elif any(k in name for k in ("shared", "embed", "wte", "wpe", "lm_head")): normal(p, spec["emb"])
        # a post-norm model with equal spreads everywhere says one id for ever: sharper queries and keys, quieter outputs, louder positions
        elif "q_proj" in name or "k_proj" in name: normal(p, spec["std"] * spec.get("sharp", 2.0))
        elif "out_proj" in name: normal(p, spec["std"] * spec.get("quiet", 0.35))
        else: normal(p, spec["std"] * (0.6 if "fc2" in name else 1))
        if spec.get("qk") and name.endswith("c_attn.weight"): p[:, :2 * spec["d"]] *= spec["qk"] / spec["std"]
    if spec.get("bias"): normal(model.final_logits_bias, 0.8)
    return model.to(spec["dtype"]).float().eval()          # rounded to the file's dtype, then float32


def pick(name, spec):
    """A seed whose model can tell attention from no attention; its inputs, start id and EOS ids."""
    for seed in range(1, 400):
        model = build(spec, seed); r = Runner(model); rng = random.Random(f"{name}{seed}")
        ids = [i for i in range(spec["V"]) if i != spec.get("pad", 1)]
        inputs = [[rng.choice(ids) for _ in range(n)] for n in spec.get("lengths", LENGTHS)]
        start, eos = spec.get("start", 2), None
        if spec.get("start_is_eos"):                      # BART's habit: the start token is the EOS; take one that the model also generates
            for start in rng.sample([i for i in ids if i > 3], 15):
                runs = [r.plain(x, start, 1, 16, r.m32) for x in inputs]
                if 2 <= sum(start in y[2:13] for y in runs) <= 5: eos = [start]; break
            if eos is None: continue
        if not spec.get("start_is_eos") and sum(len(set(r.plain(x, start, 1, 16, r.m32))) >= 6 for x in inputs[2:5]) < 2: continue
        greedy = [r.plain(x, start, 1, 16, r.m32) for x in inputs]
        if sum(len(set(y)) >= 6 for y in greedy) < 5 or len(set(map(tuple, greedy))) < 6: continue
        beam = [r.plain(x, start, 4, 16, r.m32) for x in inputs]
        if sum(len(set(y)) >= 6 for y in beam) < 5 or len(set(map(tuple, beam))) < 6: continue
        kinds = spec.get("zeroed") or (["cross", "self", "encoder", "queries"] if r.encdec else ["self", "queries"])
        counts, least = {}, lambda what: spec.get("least", {}).get(what, 5)
        for what in kinds:
            z = zeroed(r.m32, what)
            # a one-token prompt has nothing to attend to but itself: uniform attention changes nothing at first, so 5 of 7 is asked
            counts[what] = (sum(r.plain(x, start, 1, 16, z) != y for x, y in zip(inputs, greedy)), sum(r.plain(x, start, 4, 16, z) != y for x, y in zip(inputs, beam)))
            if min(counts[what]) < least(what): break
        if len(counts) < len(kinds) or any(min(c) < least(what) for what, c in counts.items()): continue
        if eos is None:
            share = lambda t: sum(t in y[2:13] for y in greedy + beam)
            good = sorted((i for i in ids if i > 3 and all(y[0] != i for y in greedy)), key=lambda t: abs(share(t) - 6))
            eos = good[:2] if spec.get("two_eos") else good[:1]
            if share(eos[0]) < 2: continue
        # float32 must be a fair picture of the exact model
        err = max(float(np.abs(r.stepper(x)([[start] if r.encdec else x]) - r.stepper(x, r.m32)([[start] if r.encdec else x])).max()) for x in inputs)
        assert err < 2e-4, err
        print(f"{name}: seed {seed}, start {start}, eos {eos}, distinct ids greedy {[len(set(y)) for y in greedy]} beam {[len(set(y)) for y in beam]}, "
              f"changed by zeroing {counts}, f32 logit error {err:.1e}", flush=True)
        return model, inputs, start, eos, sorted({t for y in greedy + beam for t in y}), greedy + beam
    sys.exit(f"{name}: no seed found")


def save(folder, spec, model, start, eos):
    folder.mkdir(parents=True, exist_ok=True)
    gen = dict(spec["gen"]); eos_value = eos if len(eos) > 1 else eos[0]
    if gen.pop("forced_eos", None): gen["forced_eos_token_id"] = eos[0]
    cfg = model.config; cfg.eos_token_id = eos_value
    if spec["kind"] == "bart": cfg.decoder_start_token_id = start; gen["decoder_start_token_id"] = start
    common = dict(bos_token_id=0, eos_token_id=eos_value, pad_token_id=1)
    model.generation_config = GenerationConfig(**common, **gen)
    out = copy.deepcopy(model).to(spec["dtype"]); out.config.dtype = spec["dtype"]
    total = sum(p.numel() * p.element_size() for p in out.parameters())
    out.save_pretrained(folder, max_shard_size="10GB" if spec["shards"] == 1 else int(total / (spec["shards"] - 0.5)))
    if spec.get("noprefix") or spec.get("junk") or spec.get("alias"):
        f = folder / "model.safetensors"; w = load_file(f)
        if spec.get("alias"): w["model.encoder.embed_tokens.weight"] = w.pop("model.shared.weight")
        prefix = "model." if spec["kind"] == "bart" else "transformer."
        if spec.get("noprefix"): w = {k.removeprefix(prefix): v for k, v in w.items()}
        if spec.get("junk"):
            p = "" if spec.get("noprefix") else prefix
            if spec["kind"] == "bart": w[p + "encoder.version"] = torch.tensor([2.0]); w[p + "decoder.version"] = torch.tensor([2.0])
            else:
                n = spec["positions"]
                for l in range(spec["l"]):
                    w[f"{p}h.{l}.attn.bias"] = torch.tril(torch.ones(n, n, dtype=torch.uint8)).view(1, 1, n, n); w[f"{p}h.{l}.attn.masked_bias"] = torch.tensor(-1e4)
        save_file({k: v.contiguous() for k, v in w.items()}, f, metadata={"format": "pt"})
    c = json.loads((folder / "config.json").read_text())
    if spec["kind"] == "bart":
        for k in ("id2label", "label2id", "num_labels"): c.pop(k, None)
        c["forced_eos_token_id"] = gen.get("forced_eos_token_id")
    if spec.get("nogen"):
        (folder / "generation_config.json").unlink(); c.update(gen)
    (folder / "config.json").write_text(json.dumps(c, indent=1, sort_keys=True) + "\n")
    for f in folder.glob("*.safetensors*"): f.chmod(0o644)


def states(folder, model, inputs, start, greedy):
    out, listed = {}, []
    grabbed = {}
    def grab(key): return lambda mod, args, o: grabbed.__setitem__(key, (o[0] if isinstance(o, tuple) else o).detach().clone())
    hooks = []
    if model.config.is_encoder_decoder:
        for side, stack in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
            hooks.append(stack.layernorm_embedding.register_forward_hook(grab(f"{side}.0")))
            hooks += [l.register_forward_hook(grab(f"{side}.{i + 1}")) for i, l in enumerate(stack.layers)]
    else:
        t = model.transformer
        hooks.append(t.drop.register_forward_hook(grab("decoder.0")))
        hooks += [l.register_forward_hook(grab(f"decoder.{i + 1}")) for i, l in enumerate(t.h)]
        hooks.append(t.ln_f.register_forward_hook(grab("final")))
    for i in (3, 5):
        x, kw, entry = torch.tensor([inputs[i]]), {}, {"input": i}
        if model.config.is_encoder_decoder:
            entry["decoder_input_ids"] = [start] + greedy[i][:5]; kw["decoder_input_ids"] = torch.tensor([entry["decoder_input_ids"]])
        logits = model(input_ids=x, attention_mask=torch.ones_like(x), use_cache=False, **kw).logits
        for k, v in grabbed.items(): out[f"{i}.{k}"] = v.reshape(v.shape[-2:]).contiguous()
        out[f"{i}.logits"] = logits[0].contiguous(); listed.append(entry)
    for h in hooks: h.remove()
    save_file(out, folder / "states.safetensors"); (folder / "states.safetensors").chmod(0o644)
    return listed


# ---------------------------------------------------------------- the cases


def handpicked(rng, encdec, eos, seen, runs, used, room):
    """Single options and known traps, on ids that the model likes to generate, so that they act."""
    a, b, c, d = rng.sample([i for i in seen if i not in eos], 4)
    y = rng.choice(runs); j = rng.randrange(2, 8)
    pair, triple = y[j:j + 2], y[j:j + 3]
    first = runs[rng.randrange(len(runs))][0]
    other = rng.choice([i for i in seen if i not in eos])
    base = {} if used else {"max_new_tokens": 14}
    pool = [
        ("default", {}), ("greedy", {"num_beams": 1} | base), ("beams-4", {"num_beams": 4} | base), ("beams-2-nbest", {"num_beams": 2, "num_return_sequences": 2} | base),
        ("beams-6-nbest", {"num_beams": 6, "num_return_sequences": 6} | base),
        ("beams-5-penalty-2-never", {"num_beams": 5, "length_penalty": 2.0, "early_stopping": "never", "num_return_sequences": 2} | base),
        ("beams-4-penalty-negative", {"num_beams": 4, "length_penalty": -1.0, "num_return_sequences": 2} | base),
        ("beams-4-penalty-zero", {"num_beams": 4, "length_penalty": 0.0, "early_stopping": False} | base),
        ("beams-3-early", {"num_beams": 3, "early_stopping": True, "num_return_sequences": 3} | base),
        ("beams-3-never", {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.3, "num_return_sequences": 3} | base),
        ("greedy-ngram-2", {"num_beams": 1, "no_repeat_ngram_size": 2} | base), ("greedy-ngram-1", {"num_beams": 1, "no_repeat_ngram_size": 1} | base),
        ("beams-ngram-1", {"num_beams": 3, "no_repeat_ngram_size": 1} | base), ("beams-ngram-4", {"num_beams": 3, "no_repeat_ngram_size": 4} | base),
        ("greedy-repetition-up", {"num_beams": 1, "repetition_penalty": 1.8} | base), ("greedy-repetition-down", {"num_beams": 1, "repetition_penalty": 0.8} | base),
        ("beams-repetition-up", {"num_beams": 4, "repetition_penalty": 1.3} | base), ("beams-repetition-down", {"num_beams": 2, "repetition_penalty": 0.85} | base),
        ("greedy-bad-words", {"num_beams": 1, "bad_words_ids": [[a], [b]]} | base), ("greedy-bad-pair", {"num_beams": 1, "bad_words_ids": [pair]} | base),
        ("beams-bad-words-mixed", {"num_beams": 4, "bad_words_ids": [[a], pair, triple, [eos[0]]]} | base),
        ("greedy-suppress", {"num_beams": 1, "suppress_tokens": [a, c]} | base), ("greedy-begin-suppress", {"num_beams": 1, "begin_suppress_tokens": [first, a]} | base),
        ("beams-suppress-both", {"num_beams": 3, "suppress_tokens": [b], "begin_suppress_tokens": [first]} | base),
        ("greedy-forced-bos", {"num_beams": 1, "forced_bos_token_id": other} | base), ("beams-forced-bos", {"num_beams": 4, "forced_bos_token_id": other} | base),
        ("forced-bos-begin-suppress", {"num_beams": 2, "forced_bos_token_id": other, "begin_suppress_tokens": [a, first]} | base),
        ("greedy-forced-eos", {"num_beams": 1, "forced_eos_token_id": eos[0], "max_new_tokens": 6}), ("beams-forced-eos", {"num_beams": 4, "forced_eos_token_id": eos[0], "max_new_tokens": 5}),
        ("beams-forced-eos-list", {"num_beams": 3, "eos_token_id": [eos[0], a], "forced_eos_token_id": [eos[0], a], "max_new_tokens": 6, "num_return_sequences": 3}),
        ("greedy-three-eos", {"num_beams": 1, "eos_token_id": [eos[0], a, b]} | base), ("beams-three-eos", {"num_beams": 3, "eos_token_id": [eos[0], a, b], "num_return_sequences": 3} | base),
        ("beams-two-eos-early", {"num_beams": 4, "eos_token_id": [d, eos[0]], "early_stopping": True} | base),
        ("greedy-min-new", {"num_beams": 1, "min_new_tokens": 10} | base), ("beams-min-new", {"num_beams": 4, "min_new_tokens": 8} | base),
        ("beams-min-length", {"num_beams": 3, "min_length": 9 if encdec else 26} | base),
        ("greedy-max-length", {"num_beams": 1, "max_length": 9 if encdec else 27}), ("beams-max-length", {"num_beams": 3, "max_length": 8 if encdec else 28}),
        ("one-token", {"num_beams": 2, "max_new_tokens": 1, "num_return_sequences": 2}), ("greedy-two-tokens", {"num_beams": 1, "max_new_tokens": 2}),
        ("greedy-table-end", {"num_beams": 1, "max_new_tokens": room, "min_new_tokens": room - 1}),       # the last row of the position table
        ("beams-early-nbest", {"num_beams": 5, "early_stopping": True, "num_return_sequences": 5, "eos_token_id": [eos[0], a]} | base),
        ("beams-late-nbest", {"num_beams": 5, "early_stopping": "never", "length_penalty": 2.0, "num_return_sequences": 5, "eos_token_id": [eos[0], a]} | base),
        ("beams-min-and-max", {"num_beams": 4, "min_new_tokens": 6, "max_new_tokens": 8, "length_penalty": 0.5}),
    ]
    if "max_new_tokens" in used: pool = [(n, o) for n, o in pool if "max_length" not in o]    # max_new_tokens of the file would win
    return pool


def drawn(rng, encdec, eos, seen, runs, used):
    nb = rng.choice([1, 1, 2, 3, 3, 4, 5, 6]); o = {"num_beams": nb}; pickable = [i for i in seen if i not in eos]; chance = lambda p: rng.random() < p
    length = rng.random()
    if length < 0.3 and "max_new_tokens" not in used: o["max_length"] = rng.randrange(6, 20) if encdec else rng.randrange(24, 38)
    elif length < 0.85 or not used: o["max_new_tokens"] = rng.randrange(5, 19)
    if nb > 1:
        if chance(0.7): o["length_penalty"] = rng.choice([-1.0, -0.5, 0.0, 0.3, 0.7, 1.5, 2.0])
        if chance(0.7): o["early_stopping"] = rng.choice([True, False, "never"])
        if chance(0.5): o["num_return_sequences"] = rng.randrange(1, nb + 1)
    if chance(0.35): o["no_repeat_ngram_size"] = rng.randrange(1, 5)
    if chance(0.35): o["repetition_penalty"] = rng.choice([0.8, 0.9, 1.1, 1.2, 1.5, 1.8])
    if chance(0.3):
        words = []
        for _ in range(rng.randrange(1, 4)):
            y = rng.choice(runs); j = rng.randrange(0, 12); words.append(y[j:j + rng.choice([1, 1, 2, 2, 3])])
        o["bad_words_ids"] = words
    if chance(0.25): o["suppress_tokens"] = rng.sample(pickable, rng.randrange(1, 4))
    if chance(0.25): o["begin_suppress_tokens"] = sorted({runs[rng.randrange(len(runs))][0], rng.choice(pickable)})
    if chance(0.2): o["forced_bos_token_id"] = rng.choice(pickable)
    if chance(0.25): o["eos_token_id"] = [eos[0]] + rng.sample(pickable, rng.randrange(1, 3))
    if chance(0.2): o["forced_eos_token_id"] = o.get("eos_token_id", eos[0]) if chance(0.5) else eos[0]
    r = rng.random()
    if r < 0.2: o["min_new_tokens"] = rng.randrange(2, 9)
    elif r < 0.35: o["min_length"] = rng.randrange(3, 10) if encdec else rng.randrange(12, 28)
    return o


def run_case(r, inputs, name, o, stats):
    kept, outs, margin = [], [], math.inf
    for i, x in enumerate(inputs):
        if len(kept) == 6: break
        eff, prompt = r.effective(o, x)
        if eff["max_length"] <= len(prompt) or eff["max_length"] > positions(r.m32): continue
        if max(eff.get("min_length") or 0, len(prompt) + (eff.get("min_new_tokens") or 0)) > eff["max_length"]: continue
        second, m = r.second(x, o); stats["runs"] += 1
        if m <= MIN_MARGIN or any(not s > -1e8 for _, s in second): stats["narrow"] += 1; continue
        first = r.first(x, o)
        if [y for y, _ in first] != [y for y, _ in second]: sys.exit(f"{name} {o} input {x}: {first} != {second} at margin {m}")
        worst = max(abs(a[1] - b[1]) / max(1, abs(b[1])) for a, b in zip(first, second))
        if worst > 5e-5: stats["score"] += 1; continue
        stats["worst"] = max(stats["worst"], worst)
        kept.append(i); outs.append([{"token_ids": y, "score": float(f"{s:.7g}")} for y, s in first]); margin = min(margin, m)
    if len(kept) < 2: return None
    # an option acts if leaving it out changes some output
    acts = set()
    for k in o:
        if k in ("num_return_sequences", "max_new_tokens", "max_length"): continue
        less = {j: v for j, v in o.items() if j != k}
        if k == "num_beams" and "num_return_sequences" in less: continue
        for i, out in zip(kept, outs):
            eff, prompt = r.effective(less, inputs[i])
            if eff["max_length"] > positions(r.m32): continue
            if [y for y, _ in r.second(inputs[i], less)[0]] != [y["token_ids"] for y in out]: acts.add(k); break
    for k in acts: stats["acts"][k] = stats["acts"].get(k, 0) + 1
    return {"name": name, "generation": o, "inputs": kept, "outputs": outs, "margin": float(f"{margin:.3g}")}, acts


def make_model(root, name, spec, want):
    t0 = time.time(); folder = root / name
    model, inputs, start, eos, seen, runs = pick(name, spec)
    if folder.exists(): shutil.rmtree(folder)
    save(folder, spec, model, start, eos)
    auto = AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else AutoModelForCausalLM
    loaded = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()     # the reference is what HF loads from the files
    made, read = model.state_dict(), loaded.state_dict()
    assert made.keys() == read.keys() and all(torch.equal(made[k], read[k]) for k in made), "the files do not load to the same model"
    r = Runner(loaded); rng = random.Random(name); stats = {"runs": 0, "narrow": 0, "score": 0, "worst": 0.0, "acts": {}}
    used = {k for k in r.m32.generation_config.to_dict() if r.m32.generation_config.to_dict()[k] is not None} & {"max_length", "max_new_tokens"}
    pool = handpicked(rng, r.encdec, eos, seen, runs, used, spec["positions"] - (1 if r.encdec else LENGTHS[-1]))
    fixed, rest = pool[:3], pool[3:]; rng.shuffle(rest)
    cases, tried, n = [], 0, 0
    queue = fixed + rest[:24] + [None] * 60
    for q in queue:
        if len(cases) >= want: break
        if q is None: n += 1; q = (f"drawn-{n}", drawn(rng, r.encdec, eos, seen, runs, used))
        tried += 1
        done = run_case(r, inputs, *q, stats)
        if done is None: continue
        case, acts = done
        if q[1] and not acts and q[0] not in ("greedy", "beams-4"): continue          # nothing in it acts: no test
        cases.append(case)
    listed = states(folder, r.m32, inputs, start, runs)
    ref = {"versions": VERSIONS, "inputs": inputs, "states": listed}
    text = json.dumps(ref)[:-1] + ',"cases":[\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n"
    (folder / "reference.json").write_text(text)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"  {len(cases)} cases kept of {tried}; {stats}; {size} bytes; {time.time() - t0:.0f} s", flush=True)
    return len(cases), size, stats["acts"]


# ---------------------------------------------------------------- warpers and tokenizers


def make_warpers(root):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
    g = np.random.default_rng(5); cases = []
    while len(cases) < 40:
        n = int(g.integers(50, 201)); x = np.round(g.normal(size=n) * g.choice([1.0, 2.5, 5.0]), 4).astype(np.float32)
        t = float(g.choice([0.3, 0.7, 1.0, 1.3, 2.0])); k = int(g.choice([0, 1, 2, 5, 20, 50, 1000])); p = float(g.choice([0.1, 0.5, 0.8, 0.9, 0.95, 1.0]))
        if g.random() < 0.2: x[g.choice(n, 10, replace=False)] = -np.inf          # masked before, as the processors leave it
        y, s = x.astype(np.float64) / t, torch.tensor(x)[None]
        order = np.sort(y)[::-1]; margin = math.inf
        if 0 < k < n: margin = min(margin, order[k - 1] - order[k]) if np.isfinite(order[k - 1]) else margin; y = np.where(y >= order[min(k, n) - 1], y, -np.inf)
        if p < 1:
            q = np.sort(np.exp(y - y.max())); margin = min(margin, np.abs(np.cumsum(q / q.sum())[:-1] - (1 - p)).min())
        fin = np.sort(x[np.isfinite(x)])
        if margin < 2e-4 or np.diff(fin).min() < 1e-5 and (k or p < 1): continue
        ids = torch.zeros(1, 1, dtype=torch.long)
        if t != 1: s = TemperatureLogitsWarper(t)(ids, s)
        if k: s = TopKLogitsWarper(k)(ids, s)
        if p < 1: s = TopPLogitsWarper(p)(ids, s)
        kept = torch.isfinite(s[0]).nonzero()[:, 0].tolist(); probs = torch.softmax(s[0].double(), -1)[kept].tolist()
        cases.append({"logits": [None if not np.isfinite(v) else float(f"{v:.4f}") for v in x], "temperature": t, "top_k": k, "top_p": p, "kept": kept,
                      "probs": [float(f"{v:.7g}") for v in probs]})
    (root / "warpers.json").write_text(json.dumps({"versions": VERSIONS, "note": "a null logit is minus infinity; top_k 0 and top_p 1 are off"})[:-1] + ',"cases":[\n'
                                       + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n")
    print("warpers.json", len(cases), "cases")


TEXTS = ["", " ", "  ", "a", "A", " a", "a ", "hello world", "Hello, world!", "I'm sure you'll say we've done it, didn't they?", "IT'S THEY'RE", "It\u2019s a curly apostrophe.",
         "Quel \u00e2ge as-tu ?", "L'\u00e9t\u00e9 dernier, \u00e0 No\u00ebl, o\u00f9 \u00e9tais-tu ?", "na\u00efve caf\u00e9 \u0153uvre \u00c7a", "cafe\u0301 combining", "1234567890", "3.14159 and 2,000,000", "10 a.m. on 24/12/1999",
         "tabs\tand\ttabs", "line\nline", "line\n\nline\n", "\n", "\n\n\n", "\r\n windows \r\n", "trailing spaces   ", "   leading spaces", "many     inner     spaces", "a  b   c    d",
         "\u4f60\u597d\uff0c\u4e16\u754c", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
         "\U0001f600", "emoji \U0001f600\U0001f680 in text", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "\U0001f1eb\U0001f1f7 flag", "\u2764\ufe0f", "\u00a0non\u00a0breaking\u00a0", "\u2003em space", "\u200bzero\u200bwidth", "\ufeffbom",
         "x = y + z; // code", "def f(x):\n    return x ** 2\n", "<html><b>bold</b></html>", "https://example.org/a?b=c&d=%20", "user@example.org", "...!!!???", "\"quoted\" 'single' `back`", "(round) [square] {curly}",
         "snake_case camelCase kebab-case", "\u00bd \u00b2 \u2460 \u2167", "\u0627\u0644\u0633\u0646\u0629 \u0661\u0662\u0663", "mixed \u4e2d\u6587 and English \u548c \u00e9\u00e8", "Stra\u00dfe \u0130stanbul \u01c5", "\x00\x01\x7f control", "\ud7ff\ue000\ufffd",
         "The thief stubbed his toe on the door. " * 12, "a" * 300, "\u00e9" * 60, "\u4e00" * 40]


def make_tokenizers(root, text):
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import GPT2TokenizerFast
    lines = [s for l in open(text, encoding="utf8").read().splitlines() for s in l.split("\t")]
    for kind in ("bpe-files", "bpe-json"):
        folder = root / "tokenizers" / kind; folder.mkdir(parents=True, exist_ok=True)
        bpe = ByteLevelBPETokenizer(); special = ["<|endoftext|>"] if kind == "bpe-files" else ["<s>", "<pad>", "</s>", "<unk>"]
        bpe.train_from_iterator(lines, vocab_size=600, min_frequency=2, special_tokens=special, show_progress=False)
        extra = []
        if kind == "bpe-files":
            bpe.save_model(str(folder))
            fast = GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
            tok = fast.backend_tokenizer; extra = ["one<|endoftext|>two"]
        else:
            tok = bpe._tokenizer; tok.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
            tok.save(str(folder / "tokenizer.json"), pretty=False); extra = ["one</s>two <pad>"]
        out = []
        for t in TEXTS + extra:
            ids = tok.encode(t).ids
            out.append({"text": t, "ids": ids, "decoded": tok.decode(ids, skip_special_tokens=True), "ids_without_specials": tok.encode(t, add_special_tokens=False).ids})
            assert t in extra or out[-1]["decoded"] == t, (t, out[-1])
        import tokenizers
        (folder / "reference.json").write_text(json.dumps({"versions": VERSIONS | {"tokenizers": tokenizers.__version__},
            "note": "ids: with the template of the file (GPT-2 adds nothing, BART <s> A </s>); decoded: special tokens skipped"})[:-1] + ',"cases":[\n'
            + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]}\n")
        print(folder.name, tok.get_vocab_size(), "entries,", len(out), "texts")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--text", help="a text file to train the two test tokenizers on (default: demo/bart-eng-fra/test.tsv of this repository)")
    ap.add_argument("--only", help="comma list of model names, or warpers, tokenizers")
    ap.add_argument("--cases", type=int, default=28, help="cases kept per model")
    a = ap.parse_args()
    root = pathlib.Path(a.out); root.mkdir(parents=True, exist_ok=True)
    only = a.only.split(",") if a.only else list(MODELS) + ["warpers", "tokenizers"]
    if "warpers" in only: make_warpers(root)
    if "tokenizers" in only: make_tokenizers(root, a.text or pathlib.Path(__file__).resolve().parent.parent / "demo/bart-eng-fra/test.tsv")
    cases = size = 0; acts = {}
    for name in MODELS:
        if name not in only: continue
        c, s, x = make_model(root, name, MODELS[name], a.cases); cases += c; size += s
        for k, v in x.items(): acts[k] = acts.get(k, 0) + v
    print(f"{cases} cases, {size} bytes; cases in which an option acts: {dict(sorted(acts.items()))}")
