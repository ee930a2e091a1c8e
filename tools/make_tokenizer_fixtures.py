#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizers/{unigram,fairseq,marian,marian-separate,t5-json,byte-fallback,parity}: small tokenizers, and what transformers makes of odd texts.

    pip install torch transformers tokenizers sentencepiece protobuf
    python make_tokenizer_fixtures.py --out tests/fixtures/tokenizers [--data DIR]

--data is the folder that ELGEN_DATA names, with tokenizers/gpt2-bpe (encoder.json, vocab.bpe, bart_fairseq_dict.txt) and
tokenizers/marian-opus-mt-en-mg: the published tokenizers, of which only ids are recorded. Nothing here is needed to build or test elgen.

The SentencePiece models are trained on demo/bart-eng-fra/test.tsv (Tatoeba, CC-BY 2.0 FR):
  unigram/spiece.model               <pad> </s> <unk> first, as T5 and Pegasus have it; a small charsmap of its own
  fairseq/sentencepiece.bpe.model    <unk> <s> </s> first, as mBART has it; the same charsmap
  marian/{source,target}.spm         the full nmt_nfkc charsmap for the source, none for the target; one vocab.json with two language codes
  marian-separate                    the same spm files without a charsmap, vocab.json and target_vocab.json
  t5-json/tokenizer.json             unigram/spiece.model as transformers saves it
  byte-fallback/tokenizer.json       the pieces of marian-separate/target.spm with byte tokens and the decoder of Llama

parity/texts.json  the texts; {"repeat": [text, n]} stands for a text n times over
parity/NAME.json   {"versions", "files", "cases": [[ids, decoded, decoded_all], ...]} in the order of the texts
  ids          with the template; more than 300 of them as [count, "FNV-1a 64 of the ids as little-endian u32, in hex"]
  decoded      of these ids without special tokens; 0 where it is the text itself; {"fnv", "bytes"} where it has more than 600 bytes
  decoded_all  the same with special tokens; 0 where it is `decoded`
parity/token_bytes.json  {NAME: [[id, hex of the token's bytes], ...]}: a part of StopStringCriteria's vocabulary, tokens by id
"""
import argparse, io, json, pathlib, random, shutil, tempfile

import sentencepiece, tokenizers, transformers
from sentencepiece import sentencepiece_model_pb2
from transformers.generation.stopping_criteria import StopStringCriteria
from transformers import AutoTokenizer, MBart50Tokenizer, MBartTokenizer, PreTrainedTokenizerFast

transformers.logging.set_verbosity_error()
ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSIONS = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__}
LONG_IDS, LONG_BYTES = 300, 600

PLAIN = [
    "", " ", "  ", "\n", "\t", "a", "A", "é", "…", "Hello world", " Hello world", "Hello world ", "  Hello  world  ", "Hello\nworld", "Hello\r\nworld",
    "Hello\tworld", "a\n\n\nb", "\n a", "a \n b", "tabs\t\tand  spaces \t mixed", "trailing newline\n", "   leading", "trailing   ", "\u00a0nbsp\u00a0both\u00a0",
    "I was born in 1979.", "Je suis né en 1979.", "Don't you think it's they're we've I'm he'll she'd?", "DON'T SHOUT, IT'S RUDE", "l'été, c'était l'œuvre d'Élise",
    "Où êtes-vous allés à Noël ? Ça va, garçon ?", "naïve café résumé", "nai\u0308ve cafe\u0301 re\u0301sume\u0301", "e\u0301\u0301 a\u0300\u0323 o\u0302\u0301", "\u0301 alone", "a\u0301\u0302\u0303\u0304\u0305",
    "Ångström Å Å", "ﬁne ﬂow oﬃce", "ＦＵＬＬ　ｗｉｄｔｈ　１２３", "½ ¼ ² ³ ① Ⅳ ㎏ ™ ℃", "straße STRASSE İstanbul ıI", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "Tiếng Việt có dấu thanh",
    "Съешь же ещё этих мягких французских булок", "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία", "שָׁלוֹם עוֹלָם", "مرحبا بالعالم، كيف حالك؟", "السَّلامُ عَلَيْكُمْ", "۱۲۳ ١٢٣", "नमस्ते दुनिया", "สวัสดีชาวโลก", "ქართული ენა",
    "የኢትዮጵያ", "你好，世界！", "我喜欢机器翻译。", "日本語のテキストです。カタカナとﾊﾝｶｸ", "한국어 문장입니다", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "中文English混合text123数字", "Привет, world! 你好 مرحبا",
    "😀", "Hello 😀 world", "👨‍👩‍👧‍👦 family", "👍🏽 thumbs", "🏳️‍🌈🇫🇷🇲🇬", "❤️ ☂︎ ☃", "a\u200db\u200cc\u200bd\u2060e", "\ufeffBOM", "soft\u00adhyphen", "\u202ertl override\u202c", "\u200e\u200fmarks",
    "\x00", "a\x00b", "\x01\x02\x1f", "bell\x07 esc\x1b[0m", "\x7f delete \x80 \x85 \x9f", "vertical\x0btab form\x0cfeed", "line\u2028separator\u2029paragraph", "\u2000\u2003em\u2009thin\u3000ideographic\u202fnarrow",
    "\ufffd replacement", "\ue000 private \U000f0000", "\U0001d400\U0001d401 math", "\U00020000 ext b", "𝒳 and 𓀀 and 🂡", "\U0010ffff",
    "https://example.org/path/to?x=1&y=%20#frag", "user.name+tag@mail.example.com", "C:\\Users\\name\\file.txt", "/usr/local/bin", "<html><body>&amp;</body></html>", "x = {'a': [1, 2.5e-3], \"b\": None}",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }", "\\n literal \\t escapes \\\\", "SELECT * FROM t WHERE a >= 3.14;", "$1,234,567.89 €9.99 £5 ¥100", "3.14159265358979 1e-10 0x1F 007", "123456789012345678901234567890",
    "2026-11-22T05:50:00Z", "+261 20 22 123 45", "10%, 20 %, 1/2, 3:45", "word.", "word .", "word , word ; word !", "« Bonjour », dit-il.", "“quotes” ‘single’ „low“ –dash—em", "...", "…!?!?", "---", "___", "* * *",
    "a" * 50, "ab" * 40, "é" * 40, "好" * 40, "!" * 60, " " * 30, "\n" * 12, "aaaa bbbb cccc dddd", "supercalifragilisticexpialidocious", "Donaudampfschifffahrtsgesellschaft", "antidisestablishmentarianism's",
    "▁", "▁ ▁▁", "a▁b", "▁Hello", "Ġ", "ĠHello Ċ", "<0x0A>", "<0x41><0x42>", "@@ and ##ing", "</w>",
    "</s>", "<s>", "<pad>", "<unk>", "<mask>", "one</s>two", "one </s> two", "  </s>  ", "<s> a </s>", "a <mask> b", "a  <mask>  b", "<unk> x <pad>", "<|endoftext|>", "one<|endoftext|>two <|endoftext|> three",
    "<extra_id_0> and <extra_id_99>", "The <extra_id_1>cat<extra_id_2>.", "<extra_id_100>", "<mask_1> sentence <mask_2> word", "<unk_2><unk_102><unk_103>", "en_XX hello fr_XX", "ro_RO", "af_ZA text", "hello</s>en_XX",
    ">>fra<< Hello", ">>fra<<Hello", ">>mlg<< Hello", ">>xyz<< Hello", " >>fra<< Hello", ">>fra Hello", "Hello >>fra<< world", ">>fra<<", ">>fra<< >>mlg<< both", "</s>>>fra<< after", "<< >> <<",
    "It rained.It poured.", "Mr. Smith went to Washington, D.C., on Jan. 5th.", "e.g. i.e. etc.", "he said:\"yes\"", "(parentheses) [brackets] {braces}", "semi;colon:colon", "under_score camelCase PascalCase kebab-case",
    "MiXeD cAsE tExT", "ALL CAPS SENTENCE HERE", "the the the the the", "a b c d e f g h i j", "I  am   very    spaced     out", "no\u00a0break\u00a0space", "zero\u200bwidth", "combining: q\u0307\u0323 q\u0323\u0307", "fi\u200cn", "i\u0307 I\u0307",
    "Dr. Müller-Lüdenscheidt's 3½-inch disk", "Hot, dry areas will become hotter and drier.", "Les régions chaudes et sèches deviendront plus chaudes et plus sèches.", "Is there anything you want me to buy for you?",
    "\u0644\u0627\u0625\u0644\u0647", "\ufefb ligature \ufdfa", "ｶﾞｷﾞ ｶ\uff9e", "가\u11a8", "क\u094dष", "\u0e01\u0e33", "Ǆ ǅ ǆ", "ſ ẛ̣", "Å\u030a", "\u2126 \u212a \u212b", "x\u00b2+y\u00b3", "\u33a1\u3392", "\u2460\u2461", "\u3131\u314f",
]
LONG = [["The thief stubbed his toe on the door. ", 520], ["é👩‍👧 你好 ", 1500], ["a", 20000], ["  spaced \n out ", 400], ["Le garçon mange une pomme.\n", 30]]


def random_texts(count):
    """Texts of random pieces: what nobody thinks of."""
    rng = random.Random(7)
    words = [w for s in PLAIN for w in s.split(" ") if 0 < len(w) < 20]
    spaces = [" "] * 8 + ["", "  ", "\n", "\t", "\u00a0", "\u3000", " \n "]
    chars = "aeiouéèçßñøłŋабвأبت你好世界のァ한글😀👍🏽\u0301\u0323\u200d\u00ad.,!?'\"-_/\\@#$%&*()[]{}0123456789▁Ġ<>"
    out = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 12)):
            parts.append(rng.choice(words) if rng.random() < 0.6 else "".join(rng.choice(chars) for _ in range(rng.randint(1, 6))))
            parts.append(rng.choice(spaces))
        out.append("".join(parts[: rng.randint(1, len(parts))]))
    return out


def texts():
    seen, out = set(), []
    for text in PLAIN + random_texts(40):
        if text not in seen:
            seen.add(text); out.append(text)
    return out + [{"repeat": pair} for pair in LONG]


def spell(text):
    return text if isinstance(text, str) else text["repeat"][0] * text["repeat"][1]


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def short_ids(ids):
    return list(ids) if len(ids) <= LONG_IDS else [len(ids), fnv(b"".join(i.to_bytes(4, "little") for i in ids))]


def short_text(text, same):
    if text == same:
        return 0
    data = text.encode("utf8", "surrogatepass")
    return text if len(data) <= LONG_BYTES else {"fnv": fnv(data), "bytes": len(data)}


def record(folder, name, tok, all_texts, files, decode=True, count=None):
    cases = []
    for text in all_texts[:count]:
        text = spell(text)
        ids = tok(text)["input_ids"]
        case = [short_ids(ids)]
        if decode:
            plain = tok.decode(ids, skip_special_tokens=True)
            case += [short_text(plain, text), short_text(tok.decode(ids, skip_special_tokens=False), plain)]
        cases.append(case)
    head = json.dumps({"versions": VERSIONS, "files": files})[:-1]
    body = ",\n".join(json.dumps(c, separators=(",", ":"), ensure_ascii=False) for c in cases)
    (folder / f"{name}.json").write_text(f'{head}, "cases": [\n{body}\n]}}\n', encoding="utf8")
    print(f"{name}: {len(cases)} texts, {(folder / f'{name}.json').stat().st_size} bytes, vocabulary {len(tok)}, class {type(tok).__name__}")


def token_bytes(tok):
    """What StopStringCriteria takes the tokens for: those of the first ids, then every seventh."""
    mode = StopStringCriteria._get_stop_string_matching_mode(tok)
    tokens, ids = StopStringCriteria.clean_tokenizer_vocab(tok, stop_string_matching_mode=mode)
    pairs = sorted((i, (t if isinstance(t, bytes) else t.encode("utf8")).hex()) for i, t in zip(ids, tokens))
    return [list(p) for p in pairs if p[0] < 260 or p[0] % 7 == 0]


def byte_fallback(root):
    """A tokenizer with byte tokens, as Llama has them, on the pieces of marian-separate/target.spm."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    processor = sentencepiece.SentencePieceProcessor(model_file=str(root / "marian-separate/target.spm"))
    vocab = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    tok = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens(["<s>", "</s>", "<unk>"])
    (root / "byte-fallback").mkdir(exist_ok=True)
    tok.save(str(root / "byte-fallback/tokenizer.json"), pretty=False)
    return PreTrainedTokenizerFast(tokenizer_file=str(root / "byte-fallback/tokenizer.json"))


def train(lines, path, size, rules, **options):
    """A Unigram model with the normalisation `rules`: a name, or a table of (from, to)."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as tmp:
        if isinstance(rules, list):
            table = pathlib.Path(tmp, "rules.tsv")
            table.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n" for a, b in rules))
            options["normalization_rule_tsv"] = str(table)
        else:
            options["normalization_rule_name"] = rules
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=size, model_type="unigram",
            num_threads=1, minloglevel=2, hard_vocab_limit=False, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    proto = sentencepiece_model_pb2.ModelProto(); proto.ParseFromString(model.getvalue())
    proto.normalizer_spec.ClearField("normalization_rule_tsv")  # the name of a temporary file
    path.write_bytes(proto.SerializeToString())
    return [sp for sp in pieces(path)]


def pieces(path):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


# What matters of NFKC, in a table small enough to commit: spaces, widths, ligatures, a few compositions, and characters that vanish.
RULES = [("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\r", " "), ("\u200b", " "), ("\u00ad", ""), ("\ufeff", ""), ("\u200e", ""), ("\u200f", ""), ("\u2026", "..."),
    ("\ufb01", "fi"), ("\ufb02", "fl"), ("\ufb03", "ffi"), ("\u00bd", "1\u20442"), ("\u00b2", "2"), ("e\u0301", "é"), ("e\u0300", "è"), ("a\u0300", "à"), ("i\u0308", "ï"), ("e\u0302", "ê"),
    ("a\u0301", "á"), ("a\u0301\u0302", "ấ")] + [(chr(0xFF01 + i), chr(0x21 + i)) for i in range(94)]


def make_models(root):
    pairs = [line.split("\t") for line in (ROOT / "demo/bart-eng-fra/test.tsv").read_text(encoding="utf8").splitlines()]
    english, french = [p[0] for p in pairs], [p[1] for p in pairs]
    train(english + french, root / "unigram/spiece.model", 1200, RULES, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>")
    train(english + french, root / "fairseq/sentencepiece.bpe.model", 1200, RULES, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
    source = train(english, root / "marian/source.spm", 900, "nmt_nfkc")
    target = train(french, root / "marian/target.spm", 900, "identity")
    shared = ["</s>", "<unk>"] + list(dict.fromkeys(p for p in source + target if p not in ("<s>", "</s>", "<unk>")))
    # A few pieces are left out of the vocabulary, as in the published ones.
    shared = [p for i, p in enumerate(shared) if i < 40 or i % 23] + [">>fra<<", ">>mlg<<", "<pad>"]
    write_json(root / "marian/vocab.json", {p: i for i, p in enumerate(shared)})
    write_json(root / "marian/tokenizer_config.json", {"source_lang": "eng", "target_lang": "mul"})
    separate = root / "marian-separate"
    source = train(english, separate / "source.spm", 300, "identity", remove_extra_whitespaces=False)
    target = train(french, separate / "target.spm", 560, "identity", byte_fallback=True)
    for name, listed in ("vocab.json", source), ("target_vocab.json", target):
        listed = ["</s>", "<unk>"] + [p for p in listed if p not in ("<s>", "</s>", "<unk>")] + ["<pad>"]
        write_json(separate / name, {p: i for i, p in enumerate(listed)})
    write_json(separate / "tokenizer_config.json", {"separate_vocabs": True, "source_lang": "en", "target_lang": "fr"})


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), encoding="utf8")


def load(files, model_type, config=None):
    """AutoTokenizer on a directory of these files {name: path or JSON value}."""
    with tempfile.TemporaryDirectory() as tmp:
        for name, content in files.items():
            if isinstance(content, pathlib.Path):
                shutil.copy(content, pathlib.Path(tmp, name))
            else:
                write_json(pathlib.Path(tmp, name), content)
        write_json(pathlib.Path(tmp, "config.json"), {"model_type": model_type})
        if config is not None:
            write_json(pathlib.Path(tmp, "tokenizer_config.json"), config)
        return AutoTokenizer.from_pretrained(tmp)


def bart_vocabulary(folder):
    """BART's ids: GPT-2's entries in the order of fairseq's dictionary."""
    by_id = {i: t for t, i in json.loads((folder / "encoder.json").read_text(encoding="utf8")).items()}
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    for line in (folder / "bart_fairseq_dict.txt").read_text(encoding="utf8").splitlines():
        name = line.split(" ")[0]
        tokens.append(by_id[int(name)] if name.isdigit() else name)
    return {t: i for i, t in enumerate(tokens + ["<mask>"])}


OPT = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", required=True)
    ap.add_argument("--data", help="also record the published tokenizers in this folder")
    ap.add_argument("--keep-models", action="store_true", help="do not train anew")
    a = ap.parse_args()
    root = pathlib.Path(a.out)
    parity = root / "parity"; parity.mkdir(parents=True, exist_ok=True)
    if not a.keep_models:
        make_models(root)
    listed = texts()
    body = ",\n".join(json.dumps(t, ensure_ascii=True) for t in listed)
    (parity / "texts.json").write_text(f"[\n{body}\n]\n")
    print(len(listed), "texts")

    bpe = {"vocab.json": root / "bpe-files/vocab.json", "merges.txt": root / "bpe-files/merges.txt"}
    record(parity, "gpt2-small", load(bpe, "gpt2"), listed, "bpe-files")
    record(parity, "bart-small", PreTrainedTokenizerFast(tokenizer_file=str(root / "bpe-json/tokenizer.json")), listed, "bpe-json")
    record(parity, "opt-small", load(bpe, "opt", OPT), listed, "bpe-files", count=60)

    spiece = {"spiece.model": root / "unigram/spiece.model"}
    t5 = load(spiece, "t5")
    with tempfile.TemporaryDirectory() as tmp:
        t5.save_pretrained(tmp)
        (root / "t5-json").mkdir(exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            write_json(root / "t5-json" / name, json.loads(pathlib.Path(tmp, name).read_text(encoding="utf8")))
    record(parity, "t5", t5, listed, "unigram")
    again = load({"tokenizer.json": root / "t5-json/tokenizer.json"}, "t5", json.loads((root / "t5-json/tokenizer_config.json").read_text()))
    assert all(again(spell(t))["input_ids"] == t5(spell(t))["input_ids"] for t in listed)
    record(parity, "pegasus", load(spiece, "pegasus"), listed, "unigram")
    fairseq = {"sentencepiece.bpe.model": root / "fairseq/sentencepiece.bpe.model"}
    record(parity, "mbart", load(fairseq, "mbart", {"src_lang": "fr_XX", "tgt_lang": "ro_RO"}), listed, "fairseq")
    record(parity, "mbart50", load(fairseq, "mbart", {"tokenizer_class": "MBart50Tokenizer", "src_lang": "fr_XX"}), listed, "fairseq")
    marian = AutoTokenizer.from_pretrained(root / "marian", config=transformers.MarianConfig())
    record(parity, "marian", marian, listed, "marian")
    separate = AutoTokenizer.from_pretrained(root / "marian-separate", config=transformers.MarianConfig())
    record(parity, "marian-separate", separate, listed, "marian-separate", decode=False)
    cases = [[ids := separate(text_target=spell(t))["input_ids"], separate.decode(ids, skip_special_tokens=True), separate.decode(ids)] for t in listed if len(spell(t)) < 80]
    body = ",\n".join(json.dumps(c, separators=(",", ":"), ensure_ascii=False) for c in cases)
    (parity / "marian-separate-target.json").write_text(f'{{"cases": [\n{body}\n]}}\n', encoding="utf8")

    fallback = byte_fallback(root)
    record(parity, "byte-fallback", fallback, listed, "byte-fallback")
    stops = {"gpt2-small": load(bpe, "gpt2"), "t5": t5, "marian": marian, "byte-fallback": fallback}
    body = ",\n".join(f"{json.dumps(name)}: {json.dumps(token_bytes(tok), separators=(',', ':'))}" for name, tok in stops.items())
    (parity / "token_bytes.json").write_text(f"{{\n{body}\n}}\n")

    if a.data:
        data = pathlib.Path(a.data) / "tokenizers"
        real = {"vocab.json": data / "gpt2-bpe/encoder.json", "merges.txt": data / "gpt2-bpe/vocab.bpe"}
        record(parity, "gpt2", load(real, "gpt2"), listed, "ELGEN_DATA tokenizers/gpt2-bpe", decode=False)
        record(parity, "bart", load(real | {"vocab.json": bart_vocabulary(data / "gpt2-bpe")}, "bart"), listed, "ELGEN_DATA tokenizers/gpt2-bpe", decode=False)
        record(parity, "marian-en-mg", AutoTokenizer.from_pretrained(data / "marian-opus-mt-en-mg"), listed, "ELGEN_DATA tokenizers/marian-opus-mt-en-mg")


if __name__ == "__main__":
    main()
