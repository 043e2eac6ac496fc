from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_transfer.data import texts_ids
from lightning_transfer.data.texts_ids import MAX_CHUNKS, open_tokenizer, token_rows
from tests.unit.export.text_toys import tokenizer

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def made():
    return open_tokenizer(tokenizer().to_str())


def test_the_tokenizers_own_padding_and_cutting_play_no_part(made) -> None:
    assert token_rows(made, "my card", 24, "head") == [[CLS, 4, 5, SEP]]
    assert len(token_rows(made, "my " * 20, 24, "head")[0]) == 22


def test_special_words_in_a_text_are_letters(made) -> None:
    [row] = token_rows(made, "my [SEP] card", 24, "head")
    assert row.count(SEP) == 1
    assert row[-1] == SEP


@pytest.mark.parametrize("rule", ["head", "head_tail"])
def test_long_texts_keep_what_the_rule_says(made, rule: str) -> None:
    text = " ".join(["my"] * 5 + ["card"] * 30 + ["lamp"] * 15)
    [row] = token_rows(made, text, 22, rule)
    ids = made.encode(text, add_special_tokens=False).ids
    kept = ids[:20] if rule == "head" else ids[:5] + ids[-15:]
    assert row == [CLS, *kept, SEP]


def test_chunks_hold_every_token_once_or_the_first_and_last_of_many(made) -> None:
    text = "my card invoice is wrong the parcel"
    ids = made.encode(text, add_special_tokens=False).ids
    rows = token_rows(made, text, 5, "chunks")
    assert [token for row in rows for token in row[1:-1]] == ids
    assert all(row[0] == CLS and row[-1] == SEP and len(row) <= 5 for row in rows)
    many = token_rows(made, "my " * 20 + "lamp " * 100 + "card " * 20, 5, "chunks")
    assert len(many) == MAX_CHUNKS
    assert many[0] == [CLS, 4, 4, 4, SEP]
    assert many[-1][1] == 5


def test_an_empty_text_is_the_special_tokens_alone(made) -> None:
    assert token_rows(made, "", 24, "head_tail") == token_rows(made, "", 24, "chunks") == [[CLS, SEP]]


def test_the_file_needs_no_torch() -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-I", "-c", code, str(Path(texts_ids.__file__))], capture_output=True)
    assert done.returncode == 0, done.stderr
