#!/usr/bin/env python3
"""Records what Hugging Face transformers does with odd values of the keys of config.json and generation_config.json.

    pip install torch transformers safetensors numpy
    python make_sweep_fixtures.py --fixtures tests/fixtures --out tests/fixtures/sweep.json [--only NAME,...]

One tiny model of make_fixtures.py stands for each distinct reader of a config. Each base (BASES) is such a model with some generation options of its
own, chosen so that the ids depend on them. Then one key after the other is set to each of some values: null, negative, the vocabulary's size, a
float, an int, a string, a bool, lists where ids may be lists; or it is taken out. Everything is loaded from the files anew, and two inputs are run
alone, with a mask of ones, in float32.

sweep.json  {"versions", "bases": [base]}
base        {"name", "model": folder beside it, "generation": keys laid over its generation_config.json, "inputs": [[ids]],
             "outcomes": [[per input [ids of each returned sequence] or null]], "config": {key: cases}, "generation_keys": {key: cases}}
cases       [[value, outcome], ...]; a case [outcome] alone is the key taken out. outcome: index into "outcomes", 0 being the base's own; -1: an error
            for every input; -2: it runs, but with weights that transformers made up for tensors that the file lacks.
ids are the new ones, up to and including an id that ends.
"""
import argparse, copy, json, pathlib, platform, tempfile, warnings

import torch, transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

torch.set_num_threads(1); torch.set_grad_enabled(False); warnings.simplefilter("ignore")
transformers.logging.set_verbosity(transformers.logging.CRITICAL); transformers.logging.disable_progress_bar()
VERSIONS = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "python": platform.python_version()}
ABSENT, BIG = "<absent>", 1 << 40

# ---------------------------------------------------------------- values by what a key holds


def count(base):   # a number of things
    return [None, -1, 0, 3, 3.0, 2.5, "3", True, ABSENT]


def shape(base):   # a count that tensors depend on: most values cannot fit them
    return [None, -1, 0, float(base), str(base), ABSENT]


def token(vocab):
    return [None, -1, vocab, BIG, 5, 5.0, "5", True, [5], ABSENT]


def tokens(vocab, end):
    return token(vocab) + [[], [vocab, end], [end, -1, BIG], [end, None], [end, 5.0], [[end]]]


FLAG = [None, True, False, 1, ABSENT]
NUMBER = [None, -1, 0, 0.5, 1, 2.0, "0.5", True, ABSENT]
EPSILON = [None, 0.1, 1, -1.0, "1e-5", ABSENT]
ACTIVATION = [None, "relu", "swish", "no such", 3, ABSENT]
DTYPE = [None, "float32", "no such", 3, ABSENT]


def lists(vocab, seen):   # of ids
    return [None, seen, [], [seen], [seen, vocab], [-1, BIG], [seen, None], [float(seen)], [str(seen)], ABSENT]


def words(vocab, seen):   # lists of lists of ids
    return [None, [], [[]], [[seen]], [[seen, vocab]], [[-1]], [seen], "x", [[float(seen)]], ABSENT]


def biases(vocab, seen):
    return [None, [], [[[seen], -9.0]], [[[seen], -9]], [[[vocab], -9.0]], [[[-1], -9.0]], [[[], 1.0]], [[[seen], "1"]], [[seen, -9.0]], {"x": 1.0}, 5, ABSENT]


DECAY = [None, [2, 1.3], [2.0, 1.3], [2.5, 1.3], [-1, 1.3], [2, -1.3], [2, 0], [2], [2, 1.3, 4], "x", 5, [None, 1.3], [True, 1.3], ABSENT]


def lengths(vocab): return [None, -1, 0, 5, 6.0, 5.5, vocab, BIG, "6", True, ABSENT]


# ---------------------------------------------------------------- keys by file


def few_ids(vocab, end, encdec):
    keys = {"eos_token_id": [None, -1, vocab, [end, vocab]], "pad_token_id": [None, -1, vocab, -vocab - 1, ABSENT], "bos_token_id": [None, -1, vocab, "5"]}
    return keys | ({"forced_eos_token_id": [None, -1, vocab], "decoder_start_token_id": [None, -1, vocab, "5", ABSENT]} if encdec else {})


def ids_of_config(vocab, end, encdec):
    keys = {"eos_token_id": tokens(vocab, end), "pad_token_id": token(vocab) + [-vocab, -vocab - 1, vocab - 1], "bos_token_id": token(vocab)}
    keys |= {"sep_token_id": [vocab]}
    if encdec: keys |= {"decoder_start_token_id": token(vocab), "forced_eos_token_id": tokens(vocab, end)}
    return keys


def gpt2_keys(c, end):
    k = {n: shape(c[n]) for n in ("vocab_size", "n_embd", "n_positions", "n_layer")} | {"n_head": [None, -1, 0, 3.0, 2, 7, "3", True, ABSENT], "n_inner": [None, -1, 0, 192.0, 192, "192", ABSENT]}
    k |= {n: FLAG for n in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention", "tie_word_embeddings", "use_cache")}
    k |= {n: [None, 2, 64, "2"] for n in ("hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings")}
    k |= {"activation_function": ACTIVATION, "layer_norm_epsilon": EPSILON, "dtype": DTYPE, "is_encoder_decoder": FLAG, "model_type": [None, "nope", 3, ABSENT]}
    return k | few_ids(c["vocab_size"], end, False)


def seq2seq_keys(c, end):
    k = {n: shape(c[n]) for n in ("vocab_size", "d_model", "max_position_embeddings", "encoder_layers", "decoder_layers", "encoder_ffn_dim")}
    k |= {n: [None, -1, 0, 2.0, 4, 7, "2", True, ABSENT] for n in ("encoder_attention_heads", "decoder_attention_heads")}
    k |= {n: FLAG for n in ("scale_embedding", "tie_word_embeddings", "is_encoder_decoder", "is_decoder", "use_cache")}
    k |= {"activation_function": ACTIVATION, "dtype": DTYPE, "hidden_size": [None, 32, 33, "32", ABSENT]}
    return k | ids_of_config(c["vocab_size"], end, True)


def marian_keys(c, end):
    k = {n: shape(c[n]) for n in ("vocab_size", "decoder_vocab_size", "encoder_layers")}
    k |= {n: FLAG for n in ("share_encoder_decoder_embeddings", "tie_word_embeddings", "scale_embedding", "static_position_embeddings")}
    v = c["decoder_vocab_size"]
    return k | {"eos_token_id": [None, -1, v, [end, v]], "pad_token_id": [None, -1, v, ABSENT], "decoder_start_token_id": [None, -1, v, "5", ABSENT]}


def separate_keys(c, end):   # where the two vocabularies are
    return {n: shape(c[n]) for n in ("vocab_size", "decoder_vocab_size")} | {n: FLAG for n in ("share_encoder_decoder_embeddings", "tie_word_embeddings")} | {"pad_token_id": token(c["decoder_vocab_size"])}


def kin_keys(c, end):   # what the class says, where the reader is BART's
    v = c["vocab_size"]
    return {"scale_embedding": FLAG, "activation_function": [None, ABSENT], "max_position_embeddings": [None, ABSENT]} | few_ids(v, end, True)


def opt_keys(c, end):
    k = {n: shape(c[n]) for n in ("vocab_size", "hidden_size", "ffn_dim", "max_position_embeddings", "num_hidden_layers", "word_embed_proj_dim")}
    k |= {"num_attention_heads": [None, -1, 0, 3.0, 2, 7, "3", True, ABSENT], "activation_function": ACTIVATION}
    k |= {n: FLAG for n in ("do_layer_norm_before", "_remove_final_layer_norm", "enable_bias", "layer_norm_elementwise_affine", "tie_word_embeddings")}
    return k | few_ids(c["vocab_size"], end, False)


def t5_keys(c, end):
    k = {n: shape(c[n]) for n in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets")}
    k |= {"relative_attention_max_distance": [None, -1, 0, 20, 128.0, "128", True, ABSENT], "layer_norm_epsilon": EPSILON, "feed_forward_proj": ACTIVATION + ["gated-relu", "gated-gelu", "relu-gated"],
          "dense_act_fn": ACTIVATION, "is_gated_act": FLAG, "scale_decoder_outputs": FLAG, "tie_word_embeddings": FLAG, "is_encoder_decoder": FLAG, "num_hidden_layers": [None, 2, 1, "2", ABSENT]}
    return k | few_ids(c["vocab_size"], end, True)


def option_keys(c, end, seen, encdec):
    """All keys of generation_config.json that elgen reads or refuses."""
    v = c["vocab_size"]
    k = {n: lengths(v) for n in ("max_length", "max_new_tokens", "min_length", "min_new_tokens")}
    k |= {"num_beams": count(0), "num_return_sequences": count(0), "num_beam_groups": [None, 0, 1, 1.0, "1", ABSENT], "diversity_penalty": [0.5, "x"],
          "early_stopping": [None, True, False, "never", 1, 0, 1.0, 0.0, 2, "x", "", ABSENT], "do_sample": [None, False, 0, 0.0, "", ABSENT]}
    k |= {n: NUMBER for n in ("length_penalty", "temperature", "top_p", "repetition_penalty", "encoder_repetition_penalty")}
    k |= {n: [-1, 2.0, "0.5"] for n in ("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")}
    k |= {"top_k": [None, -1, 0, 5, 5.0, 1.5, "5", True, ABSENT]} | {n: count(0) for n in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size")}
    k |= {n: FLAG for n in ("remove_invalid_values", "renormalize_logits", "use_cache")} | {"exponential_decay_length_penalty": DECAY, "sequence_bias": biases(v, seen), "bad_words_ids": words(v, seen)}
    k |= {"suppress_tokens": lists(v, seen), "begin_suppress_tokens": [[seen], [-1, BIG], [float(seen)]]}
    k |= {"eos_token_id": tokens(v, end), "forced_bos_token_id": token(v), "forced_eos_token_id": tokens(v, end) if encdec else [None, -1, v, [5, 6]], "pad_token_id": token(v), "bos_token_id": token(v)}
    if encdec: k |= {"decoder_start_token_id": token(v) + [[end]]}
    k |= {"max_time": [1e9, "x", 1000], "guidance_scale": [None, 1, 1.0, "x", ABSENT], "penalty_alpha": [None, 0, 0.0, "x", ABSENT],
          "token_healing": [None, False, 0, ABSENT], "force_words_ids": [None, []], "constraints": [[]], "dola_layers": [None]}
    return k | {n: [1, "x"] for n in ("output_scores", "return_dict_in_generate")}


def beam_keys(c, end, seen, encdec):
    """Those of them that act otherwise with beams, or with an encoder."""
    fewer = {"num_beam_groups", "diversity_penalty", "do_sample", "temperature", "top_p", "top_k", "use_cache", "renormalize_logits", "penalty_alpha"}
    few = {"temperature", "top_p", "top_k", "use_cache", "renormalize_logits", "repetition_penalty", "pad_token_id", "bos_token_id"}
    names = fewer | {"max_length", "max_new_tokens", "num_beams", "num_return_sequences", "early_stopping", "length_penalty", "repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
                     "eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"}
    v = c["vocab_size"]
    return {n: ([-1, 0, 0.5, "0.5"] if n in few else [None, -1, v, [v, end]] if n == "eos_token_id" else v_) for n, v_ in option_keys(c, end, seen, encdec).items() if n in names}


def option_ids(c, end, seen, encdec):
    v = c.get("decoder_vocab_size", c["vocab_size"])
    return {"eos_token_id": [None, -1, v, [end, v]], "forced_bos_token_id": [None, -1, v], "forced_eos_token_id": [None, -1, v, [end], []], "pad_token_id": [None, -1, v],
            "decoder_start_token_id": [None, -1, v, 5.0], "bad_words_ids": words(v, seen)}


def option_decay(c, end, seen, encdec):
    """Where several options act on the ends."""
    return {"eos_token_id": tokens(c["vocab_size"], end), "exponential_decay_length_penalty": DECAY, "temperature": NUMBER, "top_p": NUMBER,
            "top_k": [-1, 1, 1.5, "5"], "do_sample": FLAG, "min_p": NUMBER, "typical_p": NUMBER, "epsilon_cutoff": NUMBER, "num_return_sequences": [None, 1, 1.0]}


# (name, model, options on top of its own, numbers of the inputs, an id that occurs, keys of config.json, keys of generation_config.json)
BASES = [
    ("gpt2 greedy", "gpt2-base-like", {"max_new_tokens": None, "max_length": 16, "min_length": 5}, (3, 4), 68, gpt2_keys, option_keys),
    ("bart beams", "bart-base-like", {"max_length": 12, "min_length": 3, "length_penalty": 2.0, "forced_bos_token_id": None, "forced_eos_token_id": None, "num_beams": 3, "no_repeat_ngram_size": 2},
     (0, 3), 25, seq2seq_keys, beam_keys),
    ("gpt2 decay", "gpt2-base-like", {"max_new_tokens": 8, "exponential_decay_length_penalty": [1, 1.5], "do_sample": True, "top_k": 1}, (3, 5), 68, None, option_decay),
    ("marian", "marian-shared", {"num_beams": 2, "max_length": 9}, (2, 3), 61, marian_keys, option_ids),
    ("marian separate", "marian-separate", {"num_beams": 2, "max_length": 9}, (2, 4), 17, separate_keys, None),
    ("mbart", "mbart-50", {"max_length": 8}, (1, 2), 3, kin_keys, None),
    ("pegasus", "pegasus-tables", {"num_beams": 1, "max_length": 10}, (1, 2), 55, kin_keys, None),
    ("opt", "opt-prenorm", {"max_new_tokens": 8}, (0, 1), 33, opt_keys, None),
    ("t5", "t5-base-like", {"max_new_tokens": 8, "num_beams": 2}, (1, 3), 13, t5_keys, None),
]


# ---------------------------------------------------------------- runs


def run(folder, encdec, inputs):
    """Per input its sequences, or None for an error; "made up" where weights were."""
    try:
        auto = AutoModelForSeq2SeqLM if encdec else AutoModelForCausalLM
        model, info = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    except Exception: return [None] * len(inputs)
    if info["missing_keys"] or info["mismatched_keys"]: return "made up"
    model.eval(); found = []
    for ids in inputs:
        x = torch.tensor([ids])
        try:
            out = model.generate(x, attention_mask=torch.ones_like(x)); out = getattr(out, "sequences", out)
            e = model.generation_config.eos_token_id; ends = [] if e is None else e if isinstance(e, list) else [e]
            found.append([cut(row[1 if encdec else len(ids):], ends) for row in out.tolist()])
        except Exception: found.append(None)
    return found


def cut(row, ends):
    for i, t in enumerate(row):
        if t in ends: return row[:i + 1]
    return row


def edited(map, key, value):
    map = copy.deepcopy(map)
    if value is ABSENT: map.pop(key, None)
    else: map[key] = value
    return map


def sweep(fixtures, base):
    name, model, options, numbers, seen, config_keys, keys_of_options = base
    source = fixtures / model; read = lambda f: json.loads((source / f).read_text())
    config = read("config.json"); encdec = config["is_encoder_decoder"] if "is_encoder_decoder" in config else False
    generation = read("generation_config.json") if (source / "generation_config.json").exists() else {
        k: config[k] for k in ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id", "forced_eos_token_id") if config.get(k) is not None}
    over = {k: v for k, v in options.items()}; generation |= over
    generation = {k: v for k, v in generation.items() if v is not None}
    inputs = [read("reference.json")["inputs"][i] for i in numbers]; end = generation["eos_token_id"]
    with tempfile.TemporaryDirectory() as temp:
        folder = pathlib.Path(temp); (folder / "model.safetensors").symlink_to((source / "model.safetensors").resolve())

        def outcome(config, generation):
            (folder / "config.json").write_text(json.dumps(config)); (folder / "generation_config.json").write_text(json.dumps(generation))
            return run(folder, encdec, inputs)

        outcomes = [outcome(config, generation)]; assert all(outcomes[0]), (name, outcomes)

        def index(found):
            if found == "made up": return -2
            if not any(r is not None for r in found): return -1
            if found not in outcomes: outcomes.append(found)
            return outcomes.index(found)

        def walk(keys, of_config):
            answers = {}
            for key, values in keys.items():
                answers[key] = []
                for value in values:
                    files = (edited(config, key, value), generation) if of_config else (config, edited(generation, key, value))
                    if value is ABSENT and key not in (config if of_config else generation): continue
                    answers[key].append(([] if value is ABSENT else [value]) + [index(outcome(*files))])
            return answers

        found = {"name": name, "model": model, "config": walk(config_keys(config, end), True) if config_keys else {}}
        found["generation_keys"] = walk(keys_of_options(config, end, seen, encdec), False) if keys_of_options else {}
        found |= {"generation": generation, "inputs": inputs, "outcomes": outcomes}
    number = sum(len(c) for part in ("config", "generation_keys") for c in found[part].values())
    print(f"{name}: {number} cases, {len(outcomes)} outcomes, base {outcomes[0]}", flush=True)
    return found, number


def main():
    arguments = argparse.ArgumentParser(); arguments.add_argument("--fixtures", type=pathlib.Path, required=True); arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("--only", default=""); given = arguments.parse_args()
    chosen = [b for b in BASES if not given.only or b[0] in given.only.split(",")]
    done = [sweep(given.fixtures, base) for base in chosen]
    text = json.dumps({"versions": VERSIONS, "bases": [d[0] for d in done]}, separators=(",", ":")).replace('{"name"', '\n{"name"')
    given.out.write_text(text + "\n"); print(sum(d[1] for d in done), "cases,", len(text), "bytes")


if __name__ == "__main__": main()
