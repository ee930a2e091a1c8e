#!/usr/bin/env python3
"""Records what Hugging Face transformers does with decoder prefixes, stop strings and given targets, for tests/tests/engine_*.rs.

    pip install torch transformers tokenizers safetensors numpy
    python make_engine_references.py --fixtures tests/fixtures --text demo/bart-eng-fra/test.tsv

Writes into the fixtures folder, beside the models of make_fixtures.py:
  prefix.json        generate() with decoder_input_ids (BART) or a longer prompt (GPT-2), one input at a time in float32. `prefix` is what a
                     user gives: transformers puts the decoder start token in front unless it is there. `outputs`: the ids behind the whole
                     decoder prompt up to and including EOS, with sequences_scores (greedy: the sum of the log-softmax of the processed scores).
                     A case is kept only if the float64 model gives the same ids.
  scores.json        log-softmax of the teacher-forced logits at each target id, in float64 on the float32 weights, and the argmax.
  stop_strings.json  StopStringCriteria on ids of the byte-level tokenizer `tokenizers/bpe-json`: `vocabulary` holds each id's bytes,
                     `cases` ids, strings and whether the sequence ends.
"""
import argparse, json, pathlib, random, warnings

import torch, transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast
from transformers.generation.stopping_criteria import StopStringCriteria

torch.set_num_threads(1); torch.set_grad_enabled(False); warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__}
MODELS = {"bart-base-like": AutoModelForSeq2SeqLM, "bart-enc1-dec3-untied": AutoModelForSeq2SeqLM, "gpt2-base-like": AutoModelForCausalLM}
# One target each: families whose prefill and head are their own.
SCORED = {"t5-base-like": AutoModelForSeq2SeqLM, "t5-gated-untied": AutoModelForSeq2SeqLM, "t5-head12-bf16-sharded": AutoModelForSeq2SeqLM,
          "marian-shared": AutoModelForSeq2SeqLM, "marian-separate": AutoModelForSeq2SeqLM, "mbart-50": AutoModelForSeq2SeqLM,
          "pegasus-tables": AutoModelForSeq2SeqLM, "opt-prenorm": AutoModelForCausalLM, "opt-postnorm-projected": AutoModelForCausalLM}


def load(folder, name, dtype): return (MODELS | SCORED)[name].from_pretrained(folder / name, dtype=dtype, attn_implementation="eager").eval()
def rounded(x): return float(f"{x:.7g}")


def generate(model, source, prefix, options):
    """[(new ids, score)] of one input."""
    ids = torch.tensor([source if model.config.is_encoder_decoder else source + prefix])
    extra = {"decoder_input_ids": torch.tensor([prefix])} if model.config.is_encoder_decoder else {}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **extra, **options, return_dict_in_generate=True, output_scores=True)
    if model.config.is_encoder_decoder:
        start = model.generation_config.decoder_start_token_id
        width = len(prefix) + (prefix[0] != start)
    else:
        width = ids.shape[1]
    eos = model.generation_config.eos_token_id
    found = []
    for r, row in enumerate(out.sequences.tolist()):
        new = row[width:]
        if eos in new: new = new[:new.index(eos) + 1]
        if options["num_beams"] > 1: score = out.sequences_scores[r].item()
        else: score = sum(out.scores[t][r].log_softmax(-1)[y].item() for t, y in enumerate(new))
        found.append((new, score))
    return found


def prefixes(folder, rng):
    cases, dropped = [], 0
    for name in MODELS:
        single, double = load(folder, name, torch.float32), load(folder, name, torch.float64)
        inputs = json.loads((folder / name / "reference.json").read_text())["inputs"]
        start, eos = single.generation_config.decoder_start_token_id, single.generation_config.eos_token_id
        draw = lambda n: [rng.choice([x for x in range(3, single.config.vocab_size) if x not in (start, eos)]) for _ in range(n)]
        plain = {"forced_bos_token_id": None, "no_repeat_ngram_size": 0}
        sets = [{"num_beams": 1, "max_new_tokens": 10}, {"num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 10},
                {"num_beams": 3, "max_length": 14, "min_length": 9, "length_penalty": 1.5, "early_stopping": False},
                {"num_beams": 1, "max_new_tokens": 9, "min_new_tokens": 6, "repetition_penalty": 1.4},
                {"num_beams": 2, "max_new_tokens": 8, "no_repeat_ngram_size": 2}]
        for options in sets:
            for k, source in enumerate(inputs[1:6]):
                prefix = draw(1 + k % 3)
                if start is not None and k % 2: prefix = [start] + prefix
                o = {**plain, **options}
                if "max_length" in o and not single.config.is_encoder_decoder: o["max_length"] += len(source)
                a, b = generate(single, source, prefix, o), generate(double, source, prefix, o)
                if [x for x, _ in a] != [x for x, _ in b]: dropped += 1; continue
                cases.append({"model": name, "input": source, "prefix": prefix, "generation": o,
                              "outputs": [{"token_ids": x, "score": rounded(s)} for x, s in a]})
    print(len(cases), "prefix cases,", dropped, "dropped")
    return {"versions": VERSIONS, "cases": cases}


def scored(model, name, source, target):
    """Log-probabilities of the target's ids behind the source."""
    if model.config.is_encoder_decoder:
        start = model.generation_config.decoder_start_token_id
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start] + target[:-1]])).logits[0]
    else:
        logits = model(input_ids=torch.tensor([source + target[:-1]])).logits[0, len(source) - 1:]
    logprobs = logits.log_softmax(-1)
    return {"model": name, "source": source, "target": target, "top_ids": logprobs.argmax(-1).tolist(),
            "token_logprobs": [rounded(logprobs[t, y].item()) for t, y in enumerate(target)],
            "last_row": [rounded(x) for x in logprobs[-1].tolist()] if len(target) == 2 else None}


def scores(folder, rng):
    cases = []
    for name in MODELS:
        model = load(folder, name, torch.float64)
        for source in json.loads((folder / name / "reference.json").read_text())["inputs"]:
            target = [rng.randrange(3, model.config.vocab_size) for _ in range(rng.choice([1, 2, 7, 19]))]
            cases.append(scored(model, name, source, target))
    own = random.Random(21)
    for name in SCORED:
        model = load(folder, name, torch.float64)
        size = getattr(model.config, "decoder_vocab_size", None) or model.config.vocab_size
        inputs = json.loads((folder / name / "reference.json").read_text())["inputs"]
        cases.append(scored(model, name, max(inputs[:6], key=len), [own.randrange(3, size) for _ in range(11)]))
    print(len(cases), "scored targets")
    return {"versions": VERSIONS, "cases": cases}


def stop_strings(folder, text, rng):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizers/bpe-json/tokenizer.json"))
    clean, indices = StopStringCriteria.clean_tokenizer_vocab(tokenizer, stop_string_matching_mode="byte_level")
    vocabulary = [None] * (max(indices) + 1)
    for data, index in zip(clean, indices): vocabulary[index] = data
    lines = [column for line in text.read_text().splitlines() for column in line.split("\t")]
    cases = []
    while len(cases) < 48:
        ids = tokenizer(rng.choice(lines), add_special_tokens=False)["input_ids"]
        if len(ids) < 4: continue
        ids = ids[:rng.randint(3, len(ids))]
        data = b"".join(vocabulary[i] for i in ids)
        strings = []
        for _ in range(rng.choice([1, 1, 2])):
            end = len(data) - (rng.randrange(len(vocabulary[ids[-1]])) if rng.random() < 0.6 else rng.randint(0, len(data) - 1))
            part = data[max(0, end - rng.randint(1, 9)):end]
            if rng.random() < 0.2: part = part + rng.choice([b"e", b" ", b"st"])
            try: string = part.decode("utf-8")
            except UnicodeDecodeError: continue
            if string: strings.append(string)
        if not strings: continue
        criteria = StopStringCriteria(tokenizer, strings)
        assert criteria._stop_string_matching_mode == "byte_level"
        stops = bool(criteria(torch.tensor([ids]), None)[0])
        if sum(c["stops"] == stops for c in cases) < 24:
            cases.append({"token_ids": ids, "strings": strings, "stops": stops})
    print(len(cases), "stop string cases,", sum(any(ord(x) > 127 for s in c["strings"] for x in s) for c in cases), "beyond ASCII")
    return {"versions": VERSIONS, "vocabulary": [v.hex() for v in vocabulary], "cases": cases}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--fixtures", type=pathlib.Path, required=True)
    arguments.add_argument("--text", type=pathlib.Path, required=True)
    asked = arguments.parse_args()
    rng = random.Random(20)
    files = {"prefix": prefixes(asked.fixtures, rng), "scores": scores(asked.fixtures, rng),
             "stop_strings": stop_strings(asked.fixtures, asked.text, rng)}
    for name, value in files.items():
        (asked.fixtures / f"{name}.json").write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n")


if __name__ == "__main__": main()
