"""Makes crates/metrics/tests/metric_references.json: what sacreBLEU, rouge-score and NLTK say about texts of many kinds.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4
    python tools/make_metric_references.py

The texts are written down here or drawn from a seeded generator; demo/bart-eng-fra gives the large corpus.
"""
import json
import random
from importlib.metadata import version
from pathlib import Path

from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ROOT = Path(__file__).resolve().parent.parent
TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]

# Hypothesis, then its references.
WRITTEN = [
    ["", "something"], ["something", ""], ["", ""], [" ", "a b"], ["a", "a"], ["a", "b"], ["no", "no no"],
    ["the the the the the the the", "the cat is on the mat", "there is a cat on the mat"],
    ["the cat sat on the mat", "the cat sat on the mat"], ["The Cat SAT", "the cat sat"],
    ["the cat sat", "the dog sat down"], ["a b c x d e", "a b c y d e"], ["one two three", "one two three four five six"],
    ["one two three four five six seven eight", "one two three"],
    ["It costs 1,000.5 euros.", "It costs 1,000.50 euros."], ["3.14, 2-3 and 5-", "3.14, 2 - 3 and 5 -"], [".5 1. ,7 8,", "0.5 1 ,7 8 ,"],
    ["He said &quot;yes&quot; &amp; left &lt;now&gt;.", "He said \"yes\" & left <now>."], ["&amp;quot; twice", "&quot; twice"],
    ["<skipped> text", "text"], ["end-\nhyphen", "endhyphen"], ["well-known e-mail", "well known email"],
    ["Hello, world... (really?!)", "Hello world, really?"], ["l'eau est à 10,5% [a/b] ~c {d} `e` ^f", "l’eau est à 10,5 % [a / b]"],
    ["«\u202fbonjour\u202f»", "« bonjour »"], ["“quoted” — text…", "\"quoted\" - text..."],
    ["今天天气很好。", "今天的天气非常好。"], ["東京は日本の首都です", "日本の首都は東京です"], ["한국어 문장 입니다", "한국어 문장이다"], ["混合 mixed 文本 text 123", "mixed 混合 text 文本 123"],
    ["Привет, мир! Как дела?", "Привет мир, как дела?"], ["ΟΔΥΣΣΕΥΣ ΚΑΙ ΣΟΦΟΣ", "Οδυσσευς και σοφος"], ["İSTANBUL ve ırmak", "istanbul ve Irmak"], ["STRASSE Straße", "straße strasse"],
    ["مرحبا بالعالم، كيف حالك؟", "مرحبا يا عالم"], ["ทดสอบภาษาไทย", "ทดสอบ ภาษาไทย"], ["😀 smile 👩‍👩‍👧 family", "😀 family 👩‍👩‍👧 smile"], ["cafe\u0301 naïve", "café naïve"],
    ["tabs\tand\u00a0no-break\u3000spaces\u2028here", "tabs and no-break spaces here"], ["a\u001cb\u001fc d\u0085e", "a b c d e"], ["zero\u200bwidth", "zero width"], ["trailing spaces   ", "   leading spaces"],
    ["line one\nline two\nline three", "line one\nline 2\nline three"], ["police killed the gunman\nthe gunman was shot", "the gunman was shot down by police"],
    ["a b c\n\n\nb c d\n", "\nb c\nc d a\na b"], ["the cat\nthe cat\nthe cat", "the cat sat\non the cat"], ["x y z\nz y x", "z y x\nx y z"], ["windows\r\nlines\r\nhere", "windows\nlines\nhere"], ["!!!\n...", "a\nb"], ["\n", "\n\n"],
    ["(hi) \"there\" 'you' -dash- x", "(hi there you) dash"], ["!", "!"], ["!?", "!?"], ["...", ". . ."], ["$5.00 #tag @user 50% a_b", "$5 tag user 50 a b"],
    ["running runners ran easily fairly dying skies", "run runner runs easy fair die sky"], ["generalizations oscillators", "generalization oscillator"],
    ["relational conditional valenci digitizer conformably", "relate condition valence digitize conformable"], ["hopping hoping failing filing sized", "hop hope fail file size"],
    ["abc abc abc", "abc", "abc abc", "abc abc abc abc"], ["equal length here", "one two three", "equal length there friend", "short"], ["tie a b", "tie a c", "tie d b"],
    ["four words are here", "three words here", "five words are not here"], ["A", "a", "A"], ["best of many", "worst", "best of", "of many", "many of best"],
    ["http://example.org/a?b=c&d=e#f", "example.org a b c d e f"], ["C:\\path\\new file", "C:\\path\\old file"], ["12345678901234567890", "12345678901234567891"], ["1 2 3 4 5", "5 4 3 2 1"],
    ["U.S. and U.K. vs. E.U.", "US and UK vs EU"], ["don't can't won't", "do not cannot will not"], ["yyy syzygy toy yes", "y syzygies toys yes"], ["aaaa aaaa", "aaaa aaaa aaaa aaaa"],
]

WORDS = """the a of in and cat dog house river mountain quickly running jumped national nationalization relational happily flies studied agreed
failed sized hopping controlling adjustable communism 1,000 3.5 2026 don't well-known (maybe) "quoted" U.S. end. wait, why? été naïve 東京 Привет""".split()

STEMS = """sky skies dying lying tying news innings inning outings cannings howe proceed exceed succeed dies died ties spied tied flies caresses ponies cats
feed agreed plastered bled motoring sing conflated troubled sized hopping tanned falling hissing fizzed failing filing happy enjoy spy say by yes relational
conditional rational valenci hesitanci digitizer conformabli radicalli differentli vileli analogousli vietnamization predication operator feudalism
decisiveness hopefulness callousness formaliti sensitiviti sensibiliti geologi theologi archaeologi logi fulli hopefulli triplicate formative formalize
electriciti electrical hopeful goodness revival allowance inference airliner gyroscopic adjustable defensible irritant replacement adjustment dependent
adoption homologou communism activate angulariti homologous effective bowdlerize probate rate cease controll roll yyyy syzygy ays 1990s 2nds ion ness
usefully carefully really basically totally ally bli eed ing ed need seed being bing king sting string""".split()


def sentence(rng, words):
    return " ".join(rng.choice(words) for _ in range(rng.randint(1, 25)))


def disturbed(rng, text):
    words = text.split(" ")
    for _ in range(rng.randint(0, 6)):
        at = rng.randrange(len(words))
        action = rng.randrange(4)
        if action == 0 and len(words) > 1:
            del words[at]
        elif action == 1:
            words.insert(at, rng.choice(WORDS))
        elif action == 2:
            words[at] = words[at].upper()
        else:
            words.insert(at, words[at])
    return " ".join(words).replace(" river ", "\n")


def segments():
    rng = random.Random(20260729)
    found = [list(case) for case in WRITTEN]
    for _ in range(24):
        text = sentence(rng, WORDS)
        found.append([disturbed(rng, text)] + [disturbed(rng, text) for _ in range(rng.randint(1, 3))])
    long = " ".join(sentence(rng, WORDS) for _ in range(60))
    found.append([disturbed(rng, long), long])
    return found


def stems():
    rng = random.Random(7)
    stemmer = PorterStemmer()
    suffixes = """ s es ies sses ed eed ied ing at bl iz y ational tional enci anci izer bli alli entli eli ousli ization ation ator alism iveness fulness ousness
    aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e ll""".split(" ")
    suffixes = [suffix.strip() for suffix in suffixes]
    words = set(STEMS)
    for _ in range(1800):
        root = "".join(rng.choice("aeiouybcdfghlmnprstvwxz") for _ in range(rng.randint(0, 5)))
        words.add(root + rng.choice(suffixes) + (rng.choice(suffixes) if rng.random() < 0.3 else ""))
    words = sorted(word for word in words if len(word) > 2)
    return [[word, stemmer.stem(word)] for word in words]


def bleu(metric, score):
    return {"score": score.score, "precisions": score.precisions, "correct": [int(n) for n in score.counts], "total": [int(n) for n in score.totals],
            "bp": score.bp, "sys_len": score.sys_len, "ref_len": score.ref_len, "signature": str(metric.get_signature())}


def chrf(metric, score):
    return {"score": score.score, "name": score.name, "signature": str(metric.get_signature())}


def scores(hypotheses, references):
    """What the packages say of a corpus; the references of a sentence are a list."""
    columns = [[refs[i] if i < len(refs) else None for refs in references] for i in range(max(map(len, references)))]
    found = {}
    for lowercase in [False, True]:
        case = "lc" if lowercase else "mixed"
        for effective in [False, True]:
            metric = BLEU(lowercase=lowercase, effective_order=effective, force=True)
            found[f"bleu {case} {'effective' if effective else 'plain'}"] = bleu(metric, metric.corpus_score(hypotheses, columns))
        for name, options in {"chrf": {}, "chrf++": {"word_order": 2}, "chrf++ eps": {"word_order": 2, "eps_smoothing": True}}.items():
            metric = CHRF(lowercase=lowercase, **options)
            found[f"{name} {case}"] = chrf(metric, metric.corpus_score(hypotheses, columns))
    for stemmer in [False, True]:
        scorer = rouge_scorer.RougeScorer(TYPES, use_stemmer=stemmer)
        each = [scorer.score_multi(refs, hypothesis) for hypothesis, refs in zip(hypotheses, references)]
        mean = lambda kind, part: sum(float(getattr(score[kind], part)) for score in each) / len(each)
        found["rouge stemmed" if stemmer else "rouge"] = {kind: [mean(kind, "precision"), mean(kind, "recall"), mean(kind, "fmeasure")] for kind in TYPES}
    return found


def main():
    tokenizer = Tokenizer13a()
    cases = segments()
    single = [{"hypothesis": hypothesis, "references": references, "tokens": tokenizer(hypothesis.rstrip()).split(), "scores": scores([hypothesis], [references])}
              for hypothesis, *references in cases]
    corpora = {}
    for name, picked in {"first": cases[:20], "all": cases, "two": [case for case in cases if len(case) == 3]}.items():
        corpora[name] = scores([case[0] for case in picked], [case[1:] for case in picked])
    corpora["all, first reference"] = scores([case[0] for case in cases], [case[1:2] for case in cases])
    demo = ROOT / "demo/bart-eng-fra"
    lines = (demo / "test.tsv").read_text().splitlines()
    corpora["demo"] = scores((demo / "test.hyp").read_text().splitlines(), [line.split("\t")[1:] for line in lines])
    out = {"versions": {name: version(name) for name in ["sacrebleu", "rouge-score", "nltk"]}, "segments": single, "corpora": corpora, "stems": stems()}
    path = ROOT / "crates/metrics/tests/metric_references.json"
    path.write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(len(single), "segments,", len(corpora), "corpora,", len(out["stems"]), "stems,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
