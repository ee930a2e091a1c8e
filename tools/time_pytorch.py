#!/usr/bin/env python3
"""Times Hugging Face transformers on PyTorch: generate() on the demo translator's test sentences. A peer figure for a benchmark command.

    pip install torch transformers tokenizers safetensors sacrebleu
    python time_pytorch.py demo/bart-eng-fra --batch 50 --batch 64 --threads 2 > pytorch.json

For each batch size: seconds for all sentences (the best of --repeat runs after a warm-up batch), the model's own generation config,
float32 unless --dtype says otherwise, sentences in file order (--sort: by length). Prints one JSON object with the versions, the processor and
the BLEU of the output. A figure taken while the machine does other work is worthless; the load average is in the output.
"""
import argparse, json, os, pathlib, platform, time

import torch, transformers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("model", nargs="?", default=str(pathlib.Path(__file__).resolve().parent.parent / "demo/bart-eng-fra"))
ap.add_argument("--batch", type=int, action="append")
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--device", default="cpu")
ap.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
ap.add_argument("--num-beams", type=int)
ap.add_argument("--limit", type=int, help="only the first N sentences")
ap.add_argument("--sort", action="store_true", help="by source length")
ap.add_argument("--repeat", type=int, default=1)
a = ap.parse_args()
torch.set_num_threads(a.threads); torch.set_grad_enabled(False)

rows = [l.split("\t") for l in (pathlib.Path(a.model) / "test.tsv").read_text(encoding="utf8").splitlines()][:a.limit]
tok = AutoTokenizer.from_pretrained(a.model)
model = AutoModelForSeq2SeqLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype)).eval().to(a.device)
beams = a.num_beams or model.generation_config.num_beams
order = sorted(range(len(rows)), key=lambda i: -len(tok(rows[i][0])["input_ids"])) if a.sort else list(range(len(rows)))


def sync():
    if a.device != "cpu": torch.cuda.synchronize()


def run(batch, order):
    out, tokens = {}, 0
    for i in range(0, len(order), batch):
        part = order[i:i + batch]
        x = tok([rows[j][0] for j in part], return_tensors="pt", padding=True).to(a.device)
        y = model.generate(input_ids=x["input_ids"], attention_mask=x["attention_mask"], num_beams=beams)
        pad = model.generation_config.pad_token_id
        tokens += int((y[:, 1:] != pad).sum())
        for j, t in zip(part, tok.batch_decode(y, skip_special_tokens=True)): out[j] = t
    sync()
    return [out[i] for i in sorted(out)], tokens


def processor():
    try: return next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    except (OSError, StopIteration): return platform.processor()


runs = []
for batch in a.batch or [50, 64]:
    load = os.getloadavg()[0]
    run(batch, order[:batch]); best = None
    for _ in range(a.repeat):
        sync(); t = time.perf_counter(); hyp, tokens = run(batch, order); t = time.perf_counter() - t
        best = t if best is None else min(best, t)
    entry = {"batch": batch, "seconds": round(best, 3), "sentences_per_second": round(len(rows) / best, 2), "tokens_per_second": round(tokens / best, 1),
             "generated_tokens": tokens, "load_average_before": round(load, 2)}
    try:
        import sacrebleu
        k = max(len(r) for r in rows) - 1
        refs = [[r[1 + j] if 1 + j < len(r) else None for r in rows] for j in range(k)]
        entry["bleu"] = round(sacrebleu.corpus_bleu(hyp, refs).score, 3); entry["sacrebleu"] = sacrebleu.__version__
    except ImportError: pass
    runs.append(entry)
print(json.dumps({"model": pathlib.Path(a.model).resolve().name, "sentences": len(rows), "num_beams": beams, "dtype": a.dtype, "device": a.device if a.device == "cpu" else
                  torch.cuda.get_device_name(), "threads": a.threads, "sorted": a.sort, "processor": processor(), "torch": torch.__version__,
                  "transformers": transformers.__version__, "python": platform.python_version(), "runs": runs}, indent=1))
