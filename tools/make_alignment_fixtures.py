#!/usr/bin/env python3
"""Records the cross-attention weights that Hugging Face transformers computes while it generates, for tests/tests/alignments.rs.

    pip install torch transformers safetensors numpy
    python make_alignment_fixtures.py --fixtures tests/fixtures

Writes alignments.json into the fixtures folder, beside the models of make_fixtures.py. Each case is one generate() call per input, in float32, with
output_attentions. `alignment[t]` are the weights of the step that chose `token_ids[t]`, of decoder layer `layer` (negative: from the last one
backwards), averaged over heads, one for each source id; for beams, beam_indices[t] names the row of step t that the token extended. With `prefix`
(decoder_input_ids behind the start token) only the new ids have rows. A case is kept only if the float64 model gives the same ids, and the
weights of a beam case must differ between rows of the beam, so that a wrong beam order cannot pass.
"""
import argparse, json, pathlib, warnings

import torch, transformers
from transformers import AutoModelForSeq2SeqLM

torch.set_num_threads(1); torch.set_grad_enabled(False); warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__}
GREEDY = {"num_beams": 1, "max_new_tokens": 7}
BEAMS = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 7, "early_stopping": True}
# (layer, inputs by number, options, prefix)
CASES = {
    "bart-enc1-dec3-untied": [(-1, [0, 2, 4], GREEDY, None), (-2, [1, 3, 4], BEAMS, None), (0, [1, 3], {**BEAMS, "forced_bos_token_id": 6}, None),
                              (-1, [3], {**BEAMS, "num_return_sequences": 2}, [9, 17, 31])],
    "marian-separate": [(-1, [1, 3], GREEDY, None), (0, [0, 2, 4], BEAMS, None), (-1, [2, 3], BEAMS, None)],
    "mbart-50": [(-3, [1, 2], GREEDY, None), (1, [0, 2, 3], {**BEAMS, "min_new_tokens": 4}, None), (-1, [2, 3], {**BEAMS, "min_new_tokens": 4}, None)],
    "pegasus-tables": [(-1, [1, 3, 4], BEAMS, None), (0, [2, 3], GREEDY, None)],
    "t5-gated-untied": [(-1, [1, 2, 3], GREEDY, None), (-1, [0, 1, 2], BEAMS, None), (0, [1, 2], BEAMS, None)],
}


def generate(model, source, layer, options, prefix):
    """[(new ids, rows of weights)] of one input, and whether rows of one step ever differed between the beams."""
    ids = torch.tensor([source])
    start = model.generation_config.decoder_start_token_id
    extra = {} if prefix is None else {"decoder_input_ids": torch.tensor([[start] + prefix])}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **extra, **options, return_dict_in_generate=True, output_attentions=True)
    behind = 1 + len(prefix or [])
    eos = model.generation_config.eos_token_id
    ends = eos if isinstance(eos, list) else [eos]
    found, differ = [], False
    for r, row in enumerate(out.sequences.tolist()):
        new = row[behind:]
        cut = next((t + 1 for t, y in enumerate(new) if y in ends), len(new))
        new, rows = new[:cut], []
        for t in range(len(new)):
            # [rows, heads, query positions, source]; the first step also runs the prefix.
            weights = out.cross_attentions[t][layer].mean(1)[:, -1]
            beam = out.beam_indices[r, t].item() if options["num_beams"] > 1 else r
            differ |= bool((weights - weights[beam]).abs().max() > 1e-2)
            rows.append(weights[beam].tolist())
        found.append((new, rows))
    return found, differ


def cases(folder):
    kept, dropped = [], 0
    for name, wanted in CASES.items():
        load = lambda dtype: AutoModelForSeq2SeqLM.from_pretrained(folder / name, dtype=dtype, attn_implementation="eager").eval()
        single, double = load(torch.float32), load(torch.float64)
        inputs = json.loads((folder / name / "reference.json").read_text())["inputs"]
        for layer, numbers, options, prefix in wanted:
            for number in numbers:
                (a, differ), (b, _) = (generate(m, inputs[number], layer, options, prefix) for m in (single, double))
                if [x for x, _ in a] != [x for x, _ in b] or (options["num_beams"] > 1 and len(inputs[number]) > 1 and not differ):
                    dropped += 1; continue
                kept.append({"model": name, "layer": layer, "input": inputs[number], "prefix": prefix, "generation": options,
                             "outputs": [{"token_ids": x, "alignment": [[round(w, 6) for w in row] for row in rows]} for x, rows in a]})
    print(len(kept), "cases,", dropped, "dropped")
    return {"versions": VERSIONS, "cases": kept}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--fixtures", type=pathlib.Path, required=True)
    folder = arguments.parse_args().fixtures
    text = json.dumps(cases(folder), separators=(",", ":"), ensure_ascii=False) + "\n"
    (folder / "alignments.json").write_text(text)
    print(len(text), "bytes")


if __name__ == "__main__": main()
