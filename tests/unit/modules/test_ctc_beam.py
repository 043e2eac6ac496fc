"""Beam search over a lexicon: against every path there is, beside greedy decoding, in a module and its checkpoint."""

import itertools
import re
from pathlib import Path

import pytest
import torch

from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import DataError
from lightning_transfer.modules import ctc_beam
from lightning_transfer.modules.ctc_beam import BeamSearch, LexiconDecoder
from lightning_transfer.modules.ctc_decode import greedy_decode

SMALL = CTCVocabulary(("<pad>", "|", "a", "b", "c"))
DIGITS = CTCVocabulary.from_texts(["zero one two three four five six seven eight nine"])
WORDS = "zero one two three four five six seven eight nine".split()

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _needs_flashlight() -> None:
    pytest.importorskip("flashlight", reason="the extra `beam` is not installed")


def best_words(scores: torch.Tensor, words: list[str]) -> str:
    """The words of the best of all paths whose letters are words of the lexicon, by trying each path."""
    one = re.compile("|".join(words))
    whole = re.compile(rf"\|*((?:{one.pattern})\|*)*")
    best, found = -torch.inf, ""
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        score = float(scores[range(len(path)), path].sum())
        if score <= best:
            continue
        letters = "".join(SMALL.tokens[token] for token, _ in itertools.groupby(path) if token != SMALL.blank_id)
        if whole.fullmatch(letters):
            best, found = score, " ".join(one.findall(letters))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_all_paths_wins(seed: int) -> None:
    words = ["ab", "cab", "ca"]
    torch.manual_seed(seed)
    logits = 2 * torch.randn(3, 6, len(SMALL))
    lengths = torch.tensor([6, 5, 4])
    decoder = LexiconDecoder(BeamSearch(words, beam_size=2000, beam_threshold=1000), SMALL)
    for row, length, heard in zip(logits, lengths, decoder(logits, lengths), strict=True):
        assert heard.text == best_words(row[:length].log_softmax(-1), words)
        assert heard.frames == length


def decoder(words: list[str] = WORDS, **options: object) -> LexiconDecoder:
    return LexiconDecoder(BeamSearch(words, **options), DIGITS)


def greedy(logits: torch.Tensor, lengths: torch.Tensor) -> list:
    return greedy_decode(logits, lengths, DIGITS)


def spell(path: str) -> torch.Tensor:
    """Logits whose best token in each frame is this letter; a dot is the blank."""
    best = torch.tensor([[DIGITS.blank_id if letter == "." else DIGITS.tokens.index(letter) for letter in path]])
    return 9.0 * torch.nn.functional.one_hot(best, len(DIGITS)).float()


@pytest.mark.parametrize("path", ["..tthhr.e.ee..|oone..|", "..two|t.wo.", "s.ix|.nine", "..........", "|||"])
def test_what_is_spelled_is_heard_as_greedily_with_the_same_times(path: str) -> None:
    logits, lengths = spell(path), torch.tensor([len(path)])
    (heard,), (expected,) = (find(logits, lengths) for find in (decoder(), greedy))
    path_text = " ".join("".join(k for k, _ in itertools.groupby(w) if k != ".") for w in path.split("|")).split()
    assert heard.text.split() == [word for word in path_text if word]
    assert (heard.text, heard.words, heard.blanks) == (expected.text, expected.words, expected.blanks)
    if heard.text:
        assert heard.confidence == pytest.approx(expected.confidence, rel=1e-4)


def test_what_is_no_word_becomes_the_likeliest() -> None:
    for path, word in (("thrre", "three"), ("sev.n", "seven"), ("fife", "five"), ("s.ixnine", "six nine")):
        assert decoder()(spell(path), torch.tensor([len(path)]))[0].text == word


def test_no_frame_is_no_word() -> None:
    assert decoder()(spell("one"), torch.tensor([0]))[0].text == ""


def test_a_language_model_decides_between_words(tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="KenLM is not installed")
    model = tmp_path / "words.arpa"
    grams = "\\1-grams:\n-9\t<unk>\n-9\t<s>\t0\n-1\t</s>\n-0.1\tnine\t0\n-4\tfive\t0\n\n\\2-grams:\n-0.1\t<s> nine\n"
    model.write_text(f"\\data\\\nngram 1=5\nngram 2=1\n\n{grams}\n\\end\\\n")
    logits = spell("f.ive")
    logits[0, [0, 3], DIGITS.tokens.index("n")] = 8.0  # nearly as much an `n`
    heard = {
        name: LexiconDecoder(BeamSearch(["five", "nine"], language_model=name), DIGITS)(logits, torch.tensor([5]))[
            0
        ].text
        for name in (None, str(model))
    }
    assert heard == {None: "five", str(model): "nine"}


def test_a_checkpoint_holds_the_words_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("one\n\n two \none\n")
    options = BeamSearch(str(file), beam_size=7)
    values = options.to_dict()
    assert values["lexicon"] == ["one", "two"]
    file.unlink()
    again = BeamSearch.of(values)
    assert again is not None
    assert (again.words, again.beam_size, BeamSearch.of(None), BeamSearch.of(again)) == (("one", "two"), 7, None, again)


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"`decoding.beam_size` of at least 1, got 0"):
        BeamSearch(WORDS, beam_size=0)
    with pytest.raises(ValueError, match=r"`decoding.beam_threshold` above 0, got -1"):
        BeamSearch(WORDS, beam_threshold=-1)
    with pytest.raises(DataError, match=r"Cannot read the lexicon `.*missing.txt`.*one word a line"):
        _ = BeamSearch(str(tmp_path / "missing.txt")).words
    with pytest.raises(DataError, match="has no word"):
        _ = BeamSearch([" "]).words
    with pytest.raises(DataError, match="1 lines of the lexicon have several words: `thank you`"):
        _ = BeamSearch(["one", "thank you"]).words
    with pytest.raises(DataError, match="1 words of the lexicon cannot be spelled: `quick`"):
        LexiconDecoder(BeamSearch(["one", "quick"]), DIGITS)
    monkeypatch.setattr(ctc_beam.importlib.util, "find_spec", lambda name: None if name == "kenlm" else name)
    with pytest.raises(ImportError, match="needs KenLM: pip install kenlm"):
        LexiconDecoder(BeamSearch(WORDS, language_model="a.arpa"), DIGITS)
    monkeypatch.setattr(ctc_beam.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(DataError, match=r"no language model `a.arpa`"):
        LexiconDecoder(BeamSearch(WORDS, language_model="a.arpa"), DIGITS)
    monkeypatch.setattr(ctc_beam.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"lightning-transfer\[beam\]"):
        LexiconDecoder(BeamSearch(WORDS), DIGITS)
