"""Makes crates/metrics/tests/ter_references.json: what sacreBLEU says of the translation edit rate of texts of many kinds.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4
    python tools/make_ter_references.py

The texts are those of make_metric_references.py, and others whose words are moved about.
"""
import json
import random

import sacrebleu
from sacrebleu.metrics import TER

from make_metric_references import ROOT, WORDS, segments

MOVED = [
    ["on the mat sat the cat", "the cat sat on the mat"], ["a b c d e f g h", "e f g h a b c d"], ["d c b a", "a b c d"],
    ["x x a b x x", "a b x x x x"], ["a a a a a", "a a a"], ["b a b a b a", "a b a b a b"], ["the the cat cat", "cat the cat the"],
    ["one two three four", "four one two three"], ["one two three four", "two three four one"], ["p q r s t", "q p s r t"],
]


def moved(rng, text):
    words = text.split()
    for _ in range(rng.randint(0, 4)):
        start, length = rng.randrange(len(words)), rng.randint(1, 12)
        run = words[start:start + length]
        del words[start:start + length]
        at = rng.randint(0, len(words))
        words[at:at] = run
        if words and rng.random() < 0.5:
            words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def texts():
    rng = random.Random(20261125)
    found = segments() + MOVED
    for length in [3, 5, 8, 13, 21, 34] * 6 + [90, 150]:
        # Few different words, so that runs fit in several places.
        words = WORDS[:rng.choice([3, 6, 40])]
        reference = " ".join(rng.choice(words) for _ in range(length))
        found.append([moved(rng, reference), reference] + [moved(rng, reference) for _ in range(rng.randint(0, 2))])
    # Far longer, and far shorter, than the reference.
    found.append([" ".join(rng.choice(WORDS) for _ in range(120)), "the cat"])
    found.append(["the cat", " ".join(rng.choice(WORDS) for _ in range(120))])
    return found


def scored(hypotheses, references):
    columns = [[refs[i] if i < len(refs) else None for refs in references] for i in range(max(map(len, references)))]
    found = []
    for case_sensitive in [False, True]:
        metric = TER(case_sensitive=case_sensitive)
        score = metric.corpus_score(hypotheses, columns)
        found.append([score.score, int(score.num_edits), float(score.ref_length), str(metric.get_signature())])
    return found


def main():
    found = texts()
    cases = [{"hypothesis": case[0], "references": case[1:], "scores": scored([case[0]], [case[1:]])} for case in found]
    corpus = scored([case[0] for case in found], [case[1:] for case in found])
    path = ROOT / "crates/metrics/tests/ter_references.json"
    path.write_text(json.dumps({"sacrebleu": sacrebleu.__version__, "corpus": corpus, "cases": cases}, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
