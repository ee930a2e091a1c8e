"""Records what Hugging Face generate() returns for the toy language model of crates/search/src/twin/toy.rs.

    python make_toy_search_cases.py --out crates/search/tests/twin_cases.json      # needs torch and transformers 5.23

Nothing here is needed to build or test elgen: the file is committed. The toy is run by the real library, one sentence at a time, without
a cache, over random option sets. case = {"vocab", "seed", "prompt", "options", "outputs": [{"token_ids", "score", "logprobs"}]}; token_ids
are the new ids through EOS; score is sequences_scores for beams, else the sum of the log-softmax of the processed scores; logprobs are
those addends, for beams the transition scores. Cases with hypotheses left over near -1e9 are dropped: rounding orders those.
Beams never force one of several ids, which all score 0: the library leaves the order of ties open.
"""
import argparse, json, pathlib, random

import torch, transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

M = (1 << 64) - 1


def mix(v):
    z = (v + 0x9E3779B97F4A7C15) & M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def logits(vocab, seed, tokens):
    last = [t + 1 for t in tokens[::-1][:2]] + [0, 0]
    state = mix(mix(mix(mix(seed) ^ last[0]) ^ last[1]) ^ len(tokens))
    return [(mix(state ^ i) >> 41) / 1048576 - 4 for i in range(vocab)]


class ToyConfig(PretrainedConfig):
    model_type = "toy"


class Toy(PreTrainedModel, GenerationMixin):
    config_class = ToyConfig
    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, config):
        super().__init__(config)
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def prepare_inputs_for_generation(self, input_ids, **kwargs): return {"input_ids": input_ids}

    def forward(self, input_ids=None, attention_mask=None, **_):
        rows = [logits(self.config.vocab_size, self.config.toy_seed, row) for row in input_ids.tolist()]
        return CausalLMOutput(logits=torch.tensor(rows, dtype=torch.float32)[:, None])


def options(rng, vocab, prompt):
    pick = lambda n: sorted(rng.sample(range(vocab), n))
    new = rng.randint(1, 14)
    o = {"num_beams": rng.choice([1, 2, 3, 4, 5]), "eos_token_id": pick(rng.choice([1, 1, 1, 2, 3]))}
    o |= {"max_new_tokens": new} if rng.random() < 0.6 else {"max_length": len(prompt) + new}
    if o["num_beams"] > 1:
        if rng.random() < 0.7: o["early_stopping"] = rng.choice([True, False, "never"])
        if rng.random() < 0.7: o["length_penalty"] = rng.choice([-1.0, 0.0, 0.6, 1.5, 2.0])
        o["num_return_sequences"] = rng.randint(1, o["num_beams"])
    may = {"min_length": lambda: rng.randint(1, 12), "min_new_tokens": lambda: rng.randint(1, 6), "repetition_penalty": lambda: rng.choice([0.8, 1.3, 2.0]),
           "no_repeat_ngram_size": lambda: rng.randint(1, 3), "bad_words_ids": lambda: [pick(1), o["eos_token_id"][:1], pick(2), pick(3)],
           "suppress_tokens": lambda: pick(3), "begin_suppress_tokens": lambda: pick(4), "forced_bos_token_id": lambda: pick(1)[0],
           "forced_eos_token_id": lambda: o["eos_token_id"][0] if o["num_beams"] > 1 else o["eos_token_id"]}
    return o | {k: f() for k, f in may.items() if rng.random() < 0.25}


def run(toy, o, prompt):
    vocab, P = toy.config.vocab_size, len(prompt)
    ids = torch.tensor([prompt])
    r = toy.generate(ids, attention_mask=torch.ones_like(ids), generation_config=GenerationConfig(**o, pad_token_id=vocab + 1, use_cache=False),
                     return_dict_in_generate=True, output_scores=True)
    beams = o["num_beams"] > 1
    t = toy.compute_transition_scores(r.sequences, r.scores, r.beam_indices if beams else None, normalize_logits=not beams)
    out = []
    for i, row in enumerate(r.sequences.tolist()):
        new = row[P:]
        end = next((j + 1 for j, x in enumerate(new) if x in o["eos_token_id"]), len([x for x in new if x < vocab]))
        new = new[:end]
        lp = t[i, :end].tolist()
        out.append({"token_ids": new, "score": r.sequences_scores[i].item() if beams else sum(lp), "logprobs": lp})
    return out


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True); ap.add_argument("--count", type=int, default=240)
    a = ap.parse_args()
    torch.set_num_threads(1); torch.set_grad_enabled(False); transformers.logging.set_verbosity_error()
    rng, cases, tries = random.Random(3), [], 0
    toy = Toy(ToyConfig(vocab_size=16))
    while len(cases) < a.count:
        tries += 1
        vocab, seed = rng.randint(12, 40), rng.randrange(1 << 32)
        prompt = [rng.randrange(vocab) for _ in range(rng.choice([1, 1, 2, 4]))]
        o = options(rng, vocab, prompt)
        toy.config.vocab_size, toy.config.toy_seed = vocab, seed
        try: out = run(toy, o, prompt)
        except ValueError: continue          # options that generate() refuses
        if any(not abs(x["score"]) < 1e6 for x in out): continue
        for x in out: x["score"] = float(f"{x['score']:.7g}"); x["logprobs"] = [float(f"{v:.6g}") for v in x["logprobs"]]
        cases.append({"vocab": vocab, "seed": seed, "prompt": prompt, "options": o, "outputs": out})
    head = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "note": "made by tools/make_toy_search_cases.py"}
    body = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    pathlib.Path(a.out).write_text(json.dumps(head)[:-1] + ',"cases":[\n' + body + "\n]}\n")
    print(len(cases), "cases of", tries, "tries")
