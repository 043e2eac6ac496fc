"""Normalisers are pure and stable; the vocabulary agrees with transformers' CTC tokenizer."""

import json
import random

import pytest

from lightning_transfer.data.transcripts import NORMALISERS, CTCVocabulary, frames_needed, normaliser
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard, Schema

TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A", "O", "H", "L", "N", "'")


@pytest.fixture
def capitals() -> CTCVocabulary:
    return CTCVocabulary(TOKENS, "<pad>", "|", "<unk>")


@pytest.fixture
def theirs(tmp_path):
    tokenization = pytest.importorskip("transformers")
    file = tmp_path / "vocab.json"
    file.write_text(json.dumps({token: number for number, token in enumerate(TOKENS)}))
    return tokenization.Wav2Vec2CTCTokenizer(str(file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("It\u2019s 'quoted', isn`t it?", "it's quoted isn't it"),
        ("well-known \u2014 e.g. 50% & more_less", "well known e g 50 more less"),
        ("STRASSE Stra\u00dfe \ufb01ne", "strasse strasse fine"),
        ("na\u0131ve cafe\u0301", "na\u0131ve caf\u00e9"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940!", "\u0939\u093f\u0928\u094d\u0926\u0940"),  # vowels that are marks
        ("\u4f60\u597d\u3002", "\u4f60\u597d"),
        ("rock 'n' roll \u2019cause dogs'", "rock n roll cause dogs"),
        ("\t\n \u00a0", ""),
        ("...", ""),
    ],
)
def test_the_basic_normaliser(text: str, expected: str) -> None:
    assert normaliser("basic")(text) == expected


@pytest.mark.parametrize("name", NORMALISERS)
def test_normalising_twice_changes_nothing_more(name: str) -> None:
    texts = [
        "It\u2019s Mr. O'Neil's 5th call -- won't wait!",
        "\u0130stanbul \u03a3\u03a3",
        "a  b\n c",
        "\u00bd & 3\u00b2",
    ]
    normalise = normaliser(name)
    once = [normalise(text) for text in texts]
    assert [normalise(text) for text in once] == once


def test_the_whisper_normaliser_is_that_of_transformers() -> None:
    module = pytest.importorskip("transformers.models.whisper.english_normalizer")
    text = "Mr. Smith won't pay twenty five dollars, um, I'm afraid."
    assert normaliser("whisper")(text) == module.EnglishTextNormalizer({})(text).strip()


def test_an_unknown_normaliser_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unknown normaliser `basics`. Did you mean `basic`\? Known: basic, whisper"):
        normaliser("basics")


@pytest.mark.parametrize("text", ["HELLO THEN", "TEE", "NOT A LOAN", "", "A", "LET'S"])
def test_encoding_agrees_with_transformers(capitals: CTCVocabulary, theirs, text: str) -> None:
    assert capitals.encode(text) == theirs(text).input_ids


def test_the_other_case_is_taken_where_the_vocabulary_has_one_only(capitals: CTCVocabulary) -> None:
    assert capitals.encode("hello then") == capitals.encode("HELLO THEN")
    assert not capitals.outside(["hello then"])
    both = CTCVocabulary(("<pad>", "|", "a", "A"))
    assert both.encode("aA") == [2, 3]


def test_decoding_agrees_with_transformers(capitals: CTCVocabulary, theirs) -> None:
    rng = random.Random(0)
    letters = [number for number, token in enumerate(TOKENS) if token not in ("<s>", "</s>", "<unk>")]
    for _ in range(200):
        ids = rng.choices(letters, k=rng.randint(0, 30))
        assert capitals.decode(ids) == " ".join(theirs.decode(ids).split())


def test_special_tokens_are_no_text(capitals: CTCVocabulary) -> None:
    assert capitals.decode([1, 9, 5, 3, 10, 0, 10, 8, 2]) == "HELLO"
    # A text that spells one is read as letters: none of `<`, `s`, `>` is in the vocabulary.
    assert capitals.encode("<s>") == [3, 3, 3]
    assert capitals.outside(["<s> <pad>|"]) == {"<": 2, ">": 2, "s": 1, "p": 1, "d": 1, "|": 1}


def test_what_is_outside_is_left_out_or_unknown_and_counted() -> None:
    silent = CTCVocabulary.from_texts(["cafe"])
    assert [silent.tokens[number] for number in silent.encode("caf\u00e9 cafe")] == [*"caf", "|", *"cafe"]
    assert silent.outside(["caf\u00e9", "\u00e9\u00e9 7"]) == {"\u00e9": 3, "7": 1}
    known = CTCVocabulary((*silent.tokens, "<unk>"), unknown="<unk>")
    assert known.encode("f\u00e9") == [known.tokens.index("f"), known.tokens.index("<unk>")]


def test_tokens_of_several_letters_are_taken_first() -> None:
    vocabulary = CTCVocabulary(("<pad>", "|", "s", "c", "h", "sch", "ch"))
    assert vocabulary.encode("schch s") == [5, 6, 1, 2]
    assert vocabulary.decode([5, 5, 0, 6, 1, 2]) == "schch s"


def test_white_space_of_every_kind_is_one_delimiter() -> None:
    vocabulary = CTCVocabulary.from_texts(["a\tb\u00a0"])
    assert vocabulary.tokens == ("<pad>", "|", "a", "b")
    assert vocabulary.encode(" a\n\t b ") == [2, 1, 3]
    assert vocabulary.decode([1, 2, 1, 1, 0, 1, 3, 1]) == "a b"


def test_a_text_without_letters_gives_no_alphabet() -> None:
    with pytest.raises(DataError, match="No training text holds a character"):
        CTCVocabulary.from_texts(["", "  "])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("<pad>", "|", "a", "a"),), "has `a` more than once"),
        ((("<pad>", "a"),), r"lacks its `word_delimiter`, `\|`"),
        ((("[PAD]", "|", "a"),), "lacks its `blank`, `<pad>`"),
        ((("<pad>", "|"), "<pad>", "|", "<unk>"), "lacks its `unknown`, `<unk>`"),
    ],
)
def test_a_vocabulary_that_does_not_fit_itself(arguments, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CTCVocabulary(*arguments)


def test_it_travels_in_cards_and_schemas(capitals: CTCVocabulary) -> None:
    values = json.loads(json.dumps(capitals.to_dict()))
    assert CTCVocabulary.from_dict(values) == capitals
    card = BackboneCard("a", "a", processor={"vocabulary": values})
    assert CTCVocabulary.from_card(card) == capitals
    assert CTCVocabulary.from_card(BackboneCard("a", "a")) is None
    schema = Schema(task="transcription", classes=TOKENS, preprocessing={"vocabulary": values})
    assert CTCVocabulary.from_schema(schema) == capitals
    assert CTCVocabulary.from_schema(Schema(task="transcription", classes=())) is None


@pytest.mark.parametrize("text", ["hello", "aab", "llll", "x", ""])
def test_frames_needed_are_those_that_ctc_needs(text: str) -> None:
    """With one frame fewer no path exists, and torch's loss is infinite."""
    import torch

    vocabulary = CTCVocabulary.from_texts(["helo axb"])
    ids = vocabulary.encode(text)
    needed = frames_needed(ids)

    def loss(frames: int) -> float:
        scores = torch.zeros(frames, 1, len(vocabulary)).log_softmax(-1)
        target, sizes = torch.tensor([ids]), (torch.tensor([frames]), torch.tensor([len(ids)]))
        return float(torch.nn.functional.ctc_loss(scores, target, *sizes, blank=vocabulary.blank_id))

    assert needed == 0 or loss(needed) < float("inf")
    assert needed < 2 or loss(needed - 1) == float("inf")
