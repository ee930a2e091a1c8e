#!/usr/bin/env python3
"""Trains the small story-telling demo model: a GPT-2 architecture decoder on TinyStories and simple English sentences.

    pip install torch transformers tokenizers safetensors
    python train_gpt2_stories.py --stories tinystories_1000.json --pairs fra.txt --out gpt2-stories --minutes 50 --bf16

`tinystories_1000.json`: a JSON list of 1,000 stories (TinyStories, CDLA-Sharing 1.0). `fra.txt`: one pair a line, English TAB French
(manythings.org/anki export of tatoeba.org, CC-BY 2.0 FR); only the English side is used. A .zip that holds fra.txt is read as well.
Writes a Hugging Face checkpoint (f16 safetensors, tokenizer.json) and training.json.

1,000 stories are very little. The sentences teach words and grammar, the share of stories grows from a quarter to two thirds of a batch, and the
checkpoint with the best loss on 40 validation stories is the one that is written; training.json gives the perplexity on 40 other
stories that neither training nor that choice has seen. Expect readable simple English that wanders, not good stories.
CPU training is bound by matrix products and malloc: MALLOC_MMAP_THRESHOLD_=17179869184 MALLOC_TRIM_THRESHOLD_=17179869184 in the
environment helps, and so does --bf16 on a processor with bf16 instructions.
"""
import argparse, copy, hashlib, io, json, math, pathlib, random, time, zipfile

import torch
import torch.nn.functional as F
import tokenizers, transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

ap = argparse.ArgumentParser()
ap.add_argument("--stories", required=True)
ap.add_argument("--pairs", required=True)
ap.add_argument("--out", required=True)
ap.add_argument("--minutes", type=float, default=50)
ap.add_argument("--vocab", type=int, default=4096)
ap.add_argument("--layers", type=int, default=4)
ap.add_argument("--batch", type=int, default=8)
ap.add_argument("--lr", type=float, default=1e-3)
ap.add_argument("--threads", type=int, default=1)
ap.add_argument("--bf16", action="store_true", help="bf16 autocast")
ap.add_argument("--seed", type=int, default=1)
a = ap.parse_args()
random.seed(a.seed); torch.manual_seed(a.seed); torch.set_num_threads(a.threads)
out = pathlib.Path(a.out); out.mkdir(parents=True, exist_ok=True)
BLOCK, WIDTH, EOT = 256, 256, "<|endoftext|>"

stories = [s.strip() for s in json.load(open(a.stories, encoding="utf8"))]
stories = sorted(set(s for s in stories if s), key=lambda s: hashlib.sha256(s.encode()).hexdigest())
test, valid, train = stories[:40], stories[40:80], stories[80:]
if a.pairs.endswith(".zip"):
    pairs = zipfile.ZipFile(a.pairs).read("fra.txt").decode("utf8")
else:
    pairs = open(a.pairs, encoding="utf8").read()
sentences = sorted({l.split("\t")[0] for l in pairs.split("\n") if l.strip()})
random.shuffle(sentences)
notes = ["\n".join(sentences[i:i + 12]) for i in range(0, len(sentences), 12)]

bpe = ByteLevelBPETokenizer()
bpe.train_from_iterator(train * 3 + notes, vocab_size=a.vocab, min_frequency=2, special_tokens=[EOT], show_progress=False)
fast = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=EOT, eos_token=EOT, unk_token=EOT, model_max_length=BLOCK)
fast.save_pretrained(out)
eot = fast.convert_tokens_to_ids(EOT)
encode = lambda docs: [e.ids for e in bpe._tokenizer.encode_batch(docs)]
S, N, V, T = encode(train), encode(notes), encode(valid), encode(test)
count = lambda docs: sum(len(d) + 1 for d in docs)
print(len(train), "stories,", count(S), "tokens;", len(sentences), "sentences,", count(N), "tokens", flush=True)


def row(docs):
    """BLOCK + 1 ids that begin at the start of a text (sometimes inside it) and run on into other texts."""
    d = docs[random.randrange(len(docs))]
    if len(d) > BLOCK and random.random() < 0.5: d = d[random.randrange(len(d) - BLOCK // 2):]
    ids = ([eot] if random.random() < 0.3 else []) + d + [eot]
    while len(ids) <= BLOCK: ids = ids + docs[random.randrange(len(docs))] + [eot]
    return ids[:BLOCK + 1]


def perplexity(model, docs):
    """Of each text on its own, cut at BLOCK, given a leading end-of-text; the ending end-of-text is predicted too."""
    model.eval(); total, n = 0.0, 0
    with torch.no_grad():
        for d in docs:
            x = torch.tensor([([eot] + d + [eot])[:BLOCK]])
            total += F.cross_entropy(model(x[:, :-1]).logits[0].float(), x[0, 1:], reduction="sum").item(); n += x.shape[1] - 1
    model.train()
    return math.exp(total / n)


cfg = GPT2Config(vocab_size=len(fast), n_embd=WIDTH, n_layer=a.layers, n_head=WIDTH // 64, n_positions=BLOCK, resid_pdrop=0.15, embd_pdrop=0.15,
                 attn_pdrop=0.0, bos_token_id=eot, eos_token_id=eot)
cfg._attn_implementation = "sdpa"
model = GPT2LMHeadModel(cfg)
print(sum(p.numel() for p in model.parameters()) / 1e6, "M parameters", flush=True)
decay = [p for p in model.parameters() if p.dim() > 1]; rest = [p for p in model.parameters() if p.dim() <= 1]
opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=a.lr, betas=(0.9, 0.97), fused=True)
budget, t0, step, losses, checks = a.minutes * 60, time.time(), 0, [], 0
best, best_at, kept, history, story_tokens = float("inf"), 0, None, [], 0
model.train()
while True:
    progress = min(1.0, (time.time() - t0) / budget)
    for g in opt.param_groups: g["lr"] = a.lr * min(1.0, (step + 1) / 200) * max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
    share = 0.25 + 0.4 * progress
    rows = []
    for _ in range(a.batch):
        story = random.random() < share
        story_tokens += BLOCK * story
        rows.append(row(S if story else N))
    x = torch.tensor(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
        logits = model(x[:, :-1], use_cache=False).logits
    loss = F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), x[:, 1:].reshape(-1))
    opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0); opt.step()
    losses.append(loss.item()); step += 1
    elapsed = time.time() - t0
    if step % 50 == 0: print(f"step {step} loss {sum(losses[-50:]) / 50:.3f} {elapsed:.0f} s", flush=True)
    if elapsed > budget * (checks + 1) / 20:
        checks += 1; p = perplexity(model, V); history.append(round(p, 2))
        print(f"step {step}: validation perplexity {p:.2f}, {story_tokens / count(S):.1f} passes over the stories", flush=True)
        if p < best: best, best_at, kept = p, step, copy.deepcopy(model.state_dict())
    if elapsed > budget: break

model.load_state_dict(kept); model.half()
model.generation_config = GenerationConfig(bos_token_id=eot, eos_token_id=eot, pad_token_id=eot, do_sample=False, max_new_tokens=60)
model.save_pretrained(out)
model.float()
(out / "training.json").write_text(json.dumps({
    "test_perplexity": round(perplexity(model, T), 3), "test_stories": len(test), "validation_perplexity": round(perplexity(model, V), 3),
    "validation_history": history, "steps": step, "written_step": best_at, "passes_over_stories": round(story_tokens / count(S), 1),
    "stories": len(train), "story_tokens": count(S), "sentences": len(sentences), "sentence_tokens": count(N), "minutes": a.minutes,
    "threads": a.threads, "bf16": a.bf16, "seed": a.seed, "torch": torch.__version__, "transformers": transformers.__version__,
    "tokenizers": tokenizers.__version__}, indent=1) + "\n")
print((out / "training.json").read_text())
for prompt in ["Once upon a time, there was a little dog", "One day, Tom and his mom went to the"]:
    x = fast(prompt, return_tensors="pt")["input_ids"]
    model.eval(); print(fast.decode(model.generate(x, attention_mask=torch.ones_like(x))[0]), "\n---")
