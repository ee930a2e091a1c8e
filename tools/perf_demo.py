#!/usr/bin/env python3
"""Records what the demo translation costs: elgen with MHA and EL, PyTorch beside it in the same run, counted FLOPs, and the time to the first token.

    cargo build --release -p elgen -p elgen-tests --bins
    python tools/perf_demo.py --python PYTHON_WITH_TORCH --out docs/perf/demo.json

Runs, one after the other on an otherwise idle machine: the matrix kernel alone (kernel_bench), the 1,000 test sentences with 4 beams at batch 64 with
`--attention mha` and `el`, PyTorch on the same CPU (tools/time_pytorch.py), and one short sentence from process start, cold (empty shader cache, file
caches dropped where the machine lets us) and warm. FLOPs are counted from the shapes: 2 per multiply-add, rows as `--stats-json` reports them,
attention cores left out (under 3 % here). Prints JSON.
"""
import argparse, json, os, pathlib, platform, subprocess, sys, tempfile, time

root = pathlib.Path(__file__).resolve().parent.parent
ap = argparse.ArgumentParser()
ap.add_argument("--target", default=str(root / "target/release"))
ap.add_argument("--python", default=sys.executable, help="an interpreter with torch, transformers and sacrebleu; '' leaves PyTorch out")
ap.add_argument("--batch", type=int, default=64)
ap.add_argument("--out")
a = ap.parse_args()
elgen = str(pathlib.Path(a.target) / "elgen")
model = root / "demo/bart-eng-fra"
config = json.loads((model / "config.json").read_text())
os.environ["NODEVICE_SELECT"] = "1"


def run(command, **kw):
    return subprocess.run(command, check=True, capture_output=True, text=True, **kw)


def flops(stats, kind):
    d, v = config["d_model"], config["vocab_size"]
    encoder = stats["prompt_tokens"] * config["encoder_layers"] * (4 * d * d + 2 * d * config["encoder_ffn_dim"])
    cross_projections = 4 if kind == "el" else 2
    row = config["decoder_layers"] * ((4 + cross_projections) * d * d + 2 * d * config["decoder_ffn_dim"]) + v * d
    memory = 0 if kind == "el" else stats["prompt_tokens"] * config["decoder_layers"] * 2 * d * d
    return 2 * (encoder + memory + stats["steps"] * stats["per_step"]["rows"] * row)


result = {"machine": {"processor": next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor()),
                      "cores": os.cpu_count(), "load_average_before": os.getloadavg()[0]},
          "commit": run(["git", "-C", str(root), "describe", "--always", "--dirty"]).stdout.strip(), "command": " ".join(sys.argv)}
bench = pathlib.Path(a.target) / "kernel_bench"
if bench.exists():
    out = run([str(bench), "4,64,256"]).stdout
    result["kernel_bench"] = json.loads(out)

with tempfile.TemporaryDirectory() as tmp:
    text = pathlib.Path(tmp) / "source.txt"
    text.write_text("".join(l.split("\t")[0] + "\n" for l in (model / "test.tsv").read_text(encoding="utf8").splitlines()), encoding="utf8")
    reference = (model / "test.hyp").read_text(encoding="utf8").splitlines()
    for kind in ["mha", "el"]:
        out, stats = pathlib.Path(tmp) / f"{kind}.txt", pathlib.Path(tmp) / f"{kind}.json"
        begin = time.time()
        run([elgen, "generate", "--model", str(model), "--input", str(text), "--output", str(out), "--attention", kind, "--batch-size", str(a.batch),
             "--stats-json", str(stats), "--quiet"])
        wall = time.time() - begin
        stats = json.loads(stats.read_text())
        busy = stats["seconds"]["encode"] + stats["seconds"]["decode"]
        count = flops(stats, kind)
        same = sum(x == y for x, y in zip(out.read_text(encoding="utf8").splitlines(), reference))
        result[kind] = {"wall_seconds": wall, "gflop": count / 1e9, "gflop_per_second": count / busy / 1e9, "sentences_as_pytorch": same, "stats": stats}
    if a.python:
        # elgen sorts by length; PyTorch gets the same sentences in file order and sorted.
        for name, order in [("pytorch", []), ("pytorch_sorted", ["--sort"])]:
            out = run([a.python, str(root / "tools/time_pytorch.py"), str(model), "--batch", str(a.batch), "--threads", str(os.cpu_count()), *order])
            result[name] = json.loads(out.stdout)

    def first_token(label, env):
        stats = pathlib.Path(tmp) / "first.json"
        begin = time.time()
        run([elgen, "generate", "--model", str(model), "--attention", "el", "--max-new-tokens", "2", "--stats-json", str(stats), "--quiet", "I was born in 1979."],
            env={**os.environ, **env})
        wall = time.time() - begin
        stats = json.loads(stats.read_text())
        return {"run": label, "load_seconds": stats["seconds"]["load"], "compile_seconds": stats["seconds"]["compile"],
                "first_token_ms_after_load": stats["time_to_first_token_ms"], "process_start_to_first_token_ms": stats["seconds"]["load"] * 1e3 + stats["time_to_first_token_ms"],
                "wall_seconds_two_tokens": wall}

    dropped = True
    try:
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        dropped = False
    cache = {"MESA_SHADER_CACHE_DIR": tmp + "/shaders"}
    result["first_token"] = [first_token("cold, file caches " + ("dropped" if dropped else "as they were"), cache), first_token("warm", cache), first_token("warm again", cache)]

print(json.dumps(result, indent=1))
if a.out:
    pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")
