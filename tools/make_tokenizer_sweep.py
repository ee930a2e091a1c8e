#!/usr/bin/env python3
"""Makes tests/fixtures/sweep_tokenizer.json: every key of tokenizer_config.json, special_tokens_map.json and added_tokens.json that takes part,
through null, numbers, texts, lists, token objects and absence, with what transformers makes of each.

    pip install transformers tokenizers sentencepiece protobuf
    python make_tokenizer_sweep.py [--show NUMBER]

The tokenizers are those of tests/fixtures/tokenizers, one directory a base. --show prints what transformers says to one case and writes nothing.

    {"versions", "texts": [...], "bases": {NAME: {"files": {name: path or value}, "model_type", "ids": [...]}}, "cases": [[base, config, special_tokens_map, added_tokens, answer], ...]}
    special_tokens_map, added_tokens   0 where there is no such file
    answer   "error", or FNV-1a 64 of the answer's JSON in hex:
             [[ids, ids without the template, ids as a label, text without special tokens, text with them] per text, [texts of the base's ids that have a token]]
"""
import argparse, json, os, pathlib, shutil, tempfile, warnings
os.environ["HF_HUB_OFFLINE"] = "1"; os.environ["TOKENIZERS_PARALLELISM"] = "false"
warnings.simplefilter("ignore")
import sentencepiece, tokenizers, transformers
from transformers import AutoTokenizer

transformers.logging.set_verbosity(50)
ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests/fixtures/tokenizers"
OUT = ROOT / "tests/fixtures/sweep_tokenizer.json"
TEXTS = ["a<s> b</s>c <unk>[NEW]x", "[EXT1] the  [EXT2]house xfoobary [OTHER] foobar", "<|endoftext|> en_XX hi ro_RO <mask> <pad>", "<extra_id_0> <mask_1><mask_2> <unk_2> .", "[PAD] hello , world ! <ls> z", "  "]


def bpe_json(part):
    model = json.loads((FIXTURES / "bpe-json/tokenizer.json").read_text(encoding="utf8"))["model"]
    return model["vocab"] if part == "vocab" else "#version: 0.2\n" + "".join((m if isinstance(m, str) else " ".join(m)) + "\n" for m in model["merges"])


# A file is a path below tests/fixtures/tokenizers; "bpe-json#vocab" and "bpe-json#merges" are parts of bpe-json/tokenizer.json.
PARTS = {"bpe-json#vocab": lambda: json.dumps(bpe_json("vocab"), ensure_ascii=False), "bpe-json#merges": lambda: bpe_json("merges")}
BPE = {"vocab.json": "bpe-files/vocab.json", "merges.txt": "bpe-files/merges.txt"}
BART = {"vocab.json": "bpe-json#vocab", "merges.txt": "bpe-json#merges"}
SINGLE, T5 = {"tokenizer.json": "bpe-json/tokenizer.json"}, {"tokenizer.json": "t5-json/tokenizer.json"}
SPM, FAIRSEQ = {"spiece.model": "unigram/spiece.model"}, {"sentencepiece.bpe.model": "fairseq/sentencepiece.bpe.model"}
MARIAN = {f: f"marian/{f}" for f in ("source.spm", "target.spm", "vocab.json")}
SEPARATE = {f: f"marian-separate/{f}" for f in ("source.spm", "target.spm", "vocab.json", "target_vocab.json")}
# files, model_type, keys of tokenizer_config.json that every case of the base has
BASES = {
    "gpt2": (BPE, "gpt2", {}), "gpt2-json": (SINGLE, "gpt2", {}), "bart": (BART, "bart", {}), "bart-json": (SINGLE, "bart", {}),
    "plain-json": (SINGLE, "bart", {"tokenizer_class": "PreTrainedTokenizerFast"}), "t5": (SPM, "t5", {}), "t5-json": (T5, "t5", {}),
    "pegasus": (SPM, "pegasus", {}), "pegasus-json": (T5, "pegasus", {}), "mbart": (FAIRSEQ, "mbart", {}), "mbart-json": (T5, "mbart", {}),
    "mbart50": (FAIRSEQ, "mbart", {"tokenizer_class": "MBart50Tokenizer"}), "mbart50-json": (T5, "mbart", {"tokenizer_class": "MBart50Tokenizer"}),
    "marian": (MARIAN, "marian", {"source_lang": "eng"}), "separate": (SEPARATE, "marian", {"separate_vocabs": True}),
}
ALL, SINGLES = list(BASES), [b for b in BASES if b.endswith("-json")]
FILES = [b for b in ALL if b not in SINGLES]
ONE_A_KIND = ["gpt2", "bart-json", "plain-json", "t5", "t5-json", "pegasus", "mbart", "marian", "separate"]
ROLES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]


def token(content, **k):
    return {"__type": "AddedToken", "content": content, **k}


def bare(content, **k):
    return dict({"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}, **k)


def build(files, folder):
    for name, content in files.items():
        if isinstance(content, str) and content in PARTS:
            pathlib.Path(folder, name).write_text(PARTS[content](), encoding="utf8")
        else:
            shutil.copy(FIXTURES / content, pathlib.Path(folder, name))


def cases():
    """[base, config, special_tokens_map or 0, added_tokens or 0]"""
    found = [[b, {}, 0, 0] for b in ALL]
    def config(bases, key, *values, **more):
        found.extend([b, {key: v, **more}, 0, 0] for b in bases for v in values)
    def files(bases, cfg, special=0, added=0):
        found.extend([b, cfg, special, added] for b in bases)

    # Every role in every class, once as null or as an object; both in mBART.
    for i, role in enumerate(ROLES):
        for j, base in enumerate(b for b in ALL if b != "separate"):
            if (i + j) % 2 or base == "mbart":
                config([base], role, None)
            if (i + j) % 2 == 0 or base == "mbart":
                config([base], role, token("[NEW]", lstrip=j % 3 == 0, rstrip=j % 3 == 1, special=j % 2 == 0))
        config(["marian"], role, "[NEW]")
    config(["gpt2", "t5", "marian"], "pad_token", -1, "[NEW]")
    config(["gpt2", "mbart50"], "mask_token", bare("[NEW]"))
    for role in ("eos_token", "unk_token", "pad_token"):
        config(["separate"], role, None, "[NEW]", token("[NEW]"), "▁")
    config(["bart-json", "t5", "mbart", "marian"], "eos_token", ["</s>"], False, "", "</s>")
    config(["bart", "t5-json", "pegasus"], "unk_token", "</s>", 1.5)
    config(["gpt2", "bart-json"], "pad_token", {"content": "[PAD]"})

    config(ONE_A_KIND, "extra_special_tokens", None)
    config(["gpt2", "t5", "mbart", "marian"], "extra_special_tokens", [])
    config(ALL, "extra_special_tokens", ["[EXT1]", "</s>"], [token("[EXT1]", special=False, normalized=True), "[EXT2]"], {"image_token": "[EXT1]", "pad_token": "[OTHER]"})
    config(["gpt2", "marian"], "extra_special_tokens", {}, {"image_token": token("[EXT1]", lstrip=True)}, {"image_token": None}, {"eos_token": "[OTHER]"}, 5, "x", [5], [bare("[EXT1]")], [None])
    config(ONE_A_KIND, "additional_special_tokens", ["[EXT1]"], None)
    config(["t5-json", "pegasus-json", "mbart-json", "mbart50", "mbart50-json"], "additional_special_tokens", ["[EXT1]"])
    config(["gpt2", "t5", "marian"], "additional_special_tokens", {"image_token": "[EXT1]"}, ["<extra_id_0>"], "x", [], [["[EXT1]"]])
    config(["gpt2", "t5", "t5-json", "pegasus-json", "mbart-json", "mbart50-json", "marian"], "additional_special_tokens", ["[EXT1]"], ["<mask_1>", "<extra_id_0>"], extra_special_tokens=["[EXT2]"])
    config(ONE_A_KIND, "image_token", "[EXT1]")
    config(["gpt2"], "image_token", token("[EXT1]", rstrip=True), bare("[EXT1]"), None, 5, ["[EXT1]"])
    config(["marian"], "image_token", token("[EXT1]", rstrip=True))
    config(["gpt2", "marian"], "model_specific_special_tokens", {"image_token": "[EXT1]"}, None, ["[EXT1]"], {"image_token": 5})
    config(["gpt2", "marian"], "model_specific_special_tokens", {"a_token": "[EXT2]"}, image_token="[EXT1]")

    config(ALL, "split_special_tokens", True)
    config(["gpt2", "marian"], "split_special_tokens", False, None, 1, "yes")
    config(["gpt2", "t5", "marian"], "split_special_tokens", True, added_tokens_decoder={"5": bare("foobar"), "6": bare("[EXT1]", special=True)})
    config(["gpt2", "plain-json", "t5", "pegasus", "marian"], "clean_up_tokenization_spaces", True)
    config(["t5", "marian"], "clean_up_tokenization_spaces", None, 1, "x", [])
    config(["gpt2", "plain-json", "t5"], "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", True, 1, None, clean_up_tokenization_spaces=True)
    for key in ("add_bos_token", "add_eos_token"):
        config(["gpt2"], key, True, False, None, 1, "x")
        config(["gpt2-json", "plain-json", "bart", "t5", "marian"], key, True)
    config(["gpt2"], "add_bos_token", True, add_eos_token=True, bos_token="[NEW]", eos_token=None)
    config(["gpt2", "bart-json"], "add_prefix_space", True, False, None, 1, "x")
    config(["plain-json", "gpt2-json", "t5", "marian"], "add_prefix_space", True)
    config(["bart"], "trim_offsets", False, None, 0)
    config(["t5-json"], "extra_ids", 0, 3, True)
    config(["t5"], "extra_ids", None, -1, 0, 3, 2.0, True, "3", [3])
    config(["t5-json"], "extra_ids", 1, 0, additional_special_tokens=["<extra_id_0>"], extra_special_tokens=["[EXT1]"])
    config(["pegasus"], "offset", None, -1, 0, 3, 2.0, True, "3", 104)
    config(["pegasus"], "mask_token_sent", None, "[NEW]", "<mask_2>", token("[NEW]"), 5)
    config(["pegasus"], "mask_token_sent", None, mask_token=None)
    config(["pegasus"], "mask_token_sent", None, offset=0)
    config(["pegasus"], "mask_token", "<mask_1>", mask_token_sent="<mask_1>")
    config(["mbart", "mbart50", "mbart-json"], "src_lang", None, "de_DE", "xx", 5)
    config(["mbart", "mbart50"], "tgt_lang", "ro_RO", None)
    config(["mbart", "mbart50"], "src_lang", "fr_XX", tgt_lang="ro_RO", eos_token="[NEW]")
    for key, values in {"padding_side": ("left", None, "up"), "truncation_side": ("left", "up"), "model_max_length": (5, None, 2.0, -1, "x", 0, [5]), "max_len": ("x",), "model_input_names": ([], None, ["input_ids"], ["attention_mask"], "x", 5),
                        "chat_control_tokens": ([], None, "x"), "chat_template": ("x", None), "name_or_path": (5,), "processor_class": (None,), "legacy": (False,), "errors": (5,), "do_lower_case": (True,), "keep_accents": (True,),
                        "sp_model_kwargs": ({}, None, {"enable_sampling": False}, {"alpha": 0.1}, 5), "use_fast": (False,), "backend": ("x",), "max_length": (3,), "init_inputs": ([], None, 5), "auto_map": (None, 5, {}), "fast_tokenizer_files": (None, [], ["tokenizer.json"], 5),
                        "tokenizer_file": ("x",), "vocab_file": (5,), "pad_token_type_id": (7,), "no_such_key": (5,)}.items():
        config([b for b in ("gpt2", "t5", "marian") if b != "t5" or key in ("legacy", "init_inputs")], key, *values)
    config(["marian"], "separate_vocabs", None, False, 0)
    config(["separate"], "separate_vocabs", True, 1, "x")
    config(["marian"], "source_lang", None, 5, "fra")
    config(["marian"], "target_lang", 5)
    config(["gpt2-json", "t5-json"], "tokenizer_class", None, "", 5, "NoSuchTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")
    config(["gpt2-json"], "tokenizer_class", "GPT2TokenizerFast", "RobertaTokenizer", "BartTokenizerFast")
    config(["t5-json"], "tokenizer_class", "T5TokenizerFast", "PegasusTokenizerFast", "MBartTokenizer", "MBart50TokenizerFast")

    ext = bare("[EXT1]")
    for decoder in ({}, {"4": ext}, {"60000": ext, "60002": bare("[EXT2]", special=True)}, {"9": bare("foobar", single_word=True), "10": bare("<ls>", lstrip=True, rstrip=True, special=True)}):
        config(ONE_A_KIND, "added_tokens_decoder", decoder)
    config(["gpt2", "plain-json", "t5", "marian"], "added_tokens_decoder", {"60000": bare("[NEW]")}, pad_token="[NEW]", extra_special_tokens=["[EXT1]"])
    config(["gpt2", "marian"], "added_tokens_decoder", None, [], 5, {"x": ext}, {" 7 ": ext}, {"-1": ext}, {"7": "[EXT1]"}, {"7": {"content": "[EXT1]"}}, {"7": bare("[EXT1]", lstrip=1)}, {"7": {"content": None}}, {"7": bare("[EXT1]", other=1)}, {"1.5": ext}, {"7": token("[EXT1]", special=True)}, {"8": ext, "7": ext}, {"1": bare("</s>", special=True), "0": bare("[PAD]", special=True)})

    for added in ({"[EXT1]": 60000, "foobar": 7}, {"[EXT1]": 3, "<ls>": 60000}):
        files(ONE_A_KIND, {}, 0, added)
    files(["gpt2", "plain-json", "t5", "mbart", "marian"], {"extra_special_tokens": ["[EXT1]"], "pad_token": token("[NEW]")}, 0, {"[EXT1]": 60000, "[NEW]": 60001})
    files(["gpt2", "marian"], {"pad_token": "[PAD]"}, {"pad_token": "[OTHER]"}, {"[PAD]": 5000, "[OTHER]": 5001})
    for added in ({"[EXT1]": -1}, {"[EXT1]": 7.0}, {"[EXT1]": "7"}, {"[EXT1]": None}, {"[EXT1]": [7]}, {"[EXT1]": "7", "[EXT2]": 8}, {"": 7}, {}):
        files(["gpt2", "marian"], {}, 0, added)
    files(["gpt2", "marian"], {"added_tokens_decoder": {}}, {"pad_token": "[OTHER]"}, {"[EXT1]": 60000})

    for role in ROLES[:5]:
        files(["mbart"], {}, {role: "[OTHER]"})
        files(["marian"], {role: "[NEW]"}, {role: {"content": "[OTHER]", "lstrip": True}})
    maps = [{"pad_token": None}, {"additional_special_tokens": ["[EXT1]"]}, {"extra_special_tokens": ["[EXT1]", {"content": "[EXT2]", "rstrip": True}]}, {"extra_special_tokens": {"image_token": "[EXT1]"}}, {"image_token": "[EXT1]"}]
    for special in maps:
        files(["gpt2", "bart-json", "plain-json", "t5", "mbart", "marian"], {}, special)
        files(["t5-json", "marian"], {"extra_special_tokens": ["[NEW]"], "pad_token": "[PAD]", "image_token": "[EXT2]"}, special)
    for special in ({"extra_special_tokens": [bare("[EXT1]")]}, {"additional_special_tokens": [{"content": "[EXT1]"}]}, {"additional_special_tokens": None}, {"additional_special_tokens": {"content": "[EXT1]"}}, {"additional_special_tokens": "[E"}, {"eos_token": 5}, {"eos_token": {"content": "[OTHER]", "special": 5}}, {"eos_token": {"content": 5}}, {"add_bos_token": True}, {"split_special_tokens": True}, {"padding_side": "up"}, {"extra_special_tokens": None}, {"extra_special_tokens": 5}, {}):
        files(["gpt2-json", "marian"], {}, special)
    for base, special in ("t5", {"additional_special_tokens": None}), ("mbart-json", {"additional_special_tokens": "[E"}), ("mbart50-json", {"additional_special_tokens": "[E"}), ("t5-json", {"additional_special_tokens": {"content": "[EXT1]"}}):
        files([base], {}, special)
    files(["t5-json", "pegasus-json", "mbart-json", "mbart50-json"], {}, {"additional_special_tokens": ["[EXT1]", "en_XX"]})
    files(["gpt2", "t5", "marian"], {"pad_token": "[PAD]"}, {"pad_token": None})
    files(["gpt2", "t5", "marian"], {"pad_token": None}, {"pad_token": "[OTHER]"})
    return found


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def has_token(tok, i):
    if hasattr(tok, "backend_tokenizer"):
        return tok.backend_tokenizer.id_to_token(i) is not None
    spm = tok.spm_target if tok.separate_vocabs else tok.spm_source
    return i in tok.decoder or i in tok._added_tokens_decoder or i < spm.get_piece_size()


def answer(case, ids, folder):
    base, config, special, added = case
    for name, value in ("special_tokens_map.json", special), ("added_tokens.json", added):
        pathlib.Path(folder, name).unlink(missing_ok=True)
        if value != 0:
            pathlib.Path(folder, name).write_text(json.dumps(value))
    pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps({**BASES[base][2], **config}))
    try:
        tok = AutoTokenizer.from_pretrained(folder)
        result = []
        for text in TEXTS:
            full = tok(text)["input_ids"]
            plain = tok(text, add_special_tokens=False)["input_ids"]
            result.append([full, plain, tok(text_target=text)["input_ids"], tok.decode(full, skip_special_tokens=True), tok.decode(full)])
            if not all(type(i) is int and i >= -2**31 for row in result[-1][:3] for i in row):
                return "an id that is no integer", None
        known = [i for i in ids if has_token(tok, i)]
        result.append([tok.decode(known, skip_special_tokens=True), tok.decode(known)])
        return None, result
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}", None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--show", type=int)
    a = ap.parse_args()
    listed, rows, seen = cases(), [], set()
    unique = [c for c in listed if (k := json.dumps(c)) not in seen and not seen.add(k)]
    bases, folders = {}, {}
    with tempfile.TemporaryDirectory() as tmp:
        for name, (files, model_type, own) in BASES.items():
            folders[name] = pathlib.Path(tmp, name); folders[name].mkdir()
            build(files, folders[name])
            (folders[name] / "config.json").write_text(json.dumps({"model_type": model_type}))
            (folders[name] / "tokenizer_config.json").write_text(json.dumps(own))
            size = len(AutoTokenizer.from_pretrained(folders[name]))
            bases[name] = {"files": files, "model_type": model_type, "config": own, "ids": [*range(12), *range(size - 4, size + 5), 5000, 60000]}
        for number, case in enumerate(unique):
            if a.show is not None and number != a.show:
                continue
            error, result = answer(case, bases[case[0]]["ids"], folders[case[0]])
            text = json.dumps(result, separators=(",", ":"), ensure_ascii=False)
            if a.show is not None:
                print(json.dumps(case), error or text, sep="\n")
                return
            rows.append([*case, "error" if error else fnv(text.encode("utf8", "surrogatepass"))])
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__}
    head = json.dumps({"versions": versions, "texts": TEXTS, "bases": bases})[:-1]
    body = ",\n".join(json.dumps(r, separators=(",", ":"), ensure_ascii=False) for r in rows)
    OUT.write_text(f'{head}, "cases": [\n{body}\n]}}\n', encoding="utf8")
    print(len(rows), "cases,", sum(r[-1] == "error" for r in rows), "errors,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
