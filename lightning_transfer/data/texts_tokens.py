"""From texts to token ids, as the backbone's own tokenizer makes them; what is too long is cut by a stated rule."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.data.texts_ids import MAX_CHUNKS, LongTexts, open_tokenizer, token_rows
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard

__all__ = ["MAX_CHUNKS", "LongTexts", "TextPreprocessing"]

# Where nothing states how much a network can read: what BERT can.
_MANY_TOKENS = 512


@dataclass(frozen=True)
class TextPreprocessing:
    """Turn a text into token ids, with the tokenizer that travels in the backbone's card.

    Special words of the tokenizer that stand in a text, such as ``[SEP]``, are read as letters: a ticket cannot end
    its own text.

    Attributes:
        max_length: Tokens that the backbone sees at once, special ones included.
        long_texts: What happens to longer texts. ``head`` keeps the beginning; ``head_tail`` a quarter from the
            beginning and three quarters from the end, which was best in Sun et al. 2019 (arXiv 1905.05583, table 2);
            ``chunks`` cuts them into up to 8 parts whose features are averaged by length.
        pad_id: Token that fills up shorter texts of a batch.
        cleaning: Done to a text before; see `TextCleaning`.
        tokenizer_json: The tokenizer, as its library writes it.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "my": 2, "card": 3, "lost": 4}, "[UNK]"))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> encode = TextPreprocessing(max_length=3, long_texts="head", pad_id=0, tokenizer_json=tokenizer.to_str())
        >>> encode("my card")["input_ids"].tolist(), encode.lengths(["my card", "lost my lost card"])
        ([2, 3], [2, 4])
    """

    max_length: int
    long_texts: LongTexts
    pad_id: int
    cleaning: TextCleaning = field(default_factory=TextCleaning)
    tokenizer_json: str = field(default="", repr=False)

    @classmethod
    def from_card(
        cls,
        card: BackboneCard,
        max_length: int | None = None,
        long_texts: LongTexts = "head_tail",
        cleaning: TextCleaning | None = None,
    ) -> TextPreprocessing:
        """Take tokenizer, padding and length from the card.

        Args:
            card: Of a text backbone.
            max_length: None takes what the model was made for: of sentence encoders their own length, else all
                that it can read, at most 512 tokens.
            long_texts: See the class.
            cleaning: None cleans all.

        Raises:
            DataError: If the backbone is none for texts, has no tokenizer, one that does not fit its weights, or cannot
                read ``max_length`` tokens.
        """
        if card.modality != "text":
            raise DataError(
                f"The backbone `{card.name}` reads {card.modality}, and these data are texts. Choose a text encoder,"
                " such as `hf/sentence-transformers/all-MiniLM-L6-v2` or its folder."
            )
        text = str(card.processor.get("tokenizer_json") or "")
        if not text:
            raise DataError(
                f"The backbone `{card.name}` comes without a tokenizer. Its folder needs a `tokenizer.json`; with"
                " transformers: `AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)`."
            )
        longest = _longest(card)
        wanted = longest.default if max_length is None else max_length
        specials = _read(text, card.name).num_special_tokens_to_add(False)
        if not specials < wanted <= longest.possible:
            raise DataError(
                f"Expected `max_length` above {specials} (special tokens) and at most {longest.possible} (what"
                f" `{card.name}` can read), got {wanted}."
            )
        if long_texts not in get_args(LongTexts):
            raise DataError(f"Expected `long_texts` head, head_tail or chunks, got `{long_texts}`.")
        made = cls(wanted, long_texts, _pad_id(card), TextCleaning() if cleaning is None else cleaning, text)
        made.check_vocabulary(card)
        return made

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], card: BackboneCard) -> TextPreprocessing:
        """Rebuild from `to_dict`; the tokenizer comes from the checkpoint's card.

        Raises:
            DataError: If the card's tokenizer is not the one that was used.
        """
        cleaning = TextCleaning.from_dict(values["cleaning"])
        made = cls.from_card(card, int(values["max_length"]), values["long_texts"], cleaning)
        if made.fingerprint != values["tokenizer"]:
            raise DataError(
                f"The tokenizer of `{card.name}` is {made.fingerprint}, and the model was trained with"
                f" {values['tokenizer']}. Use the checkpoint's card."
            )
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the full specification; the tokenizer, which may have megabytes, by its hash."""
        return {
            "kind": "text",
            "max_length": self.max_length,
            "long_texts": self.long_texts,
            "pad_id": self.pad_id,
            "tokenizer": self.fingerprint,
            "cleaning": self.cleaning.to_dict(),
        }

    @property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the tokenizer's SHA-256."""
        return hashlib.sha256(self.tokenizer_json.encode()).hexdigest()[:16]

    def check_vocabulary(self, card: BackboneCard) -> None:
        """Refuse a tokenizer that belongs to other weights.

        Raises:
            DataError: If it has ids that the weights do not know.
        """
        size = card.architecture_config.get("vocab_size")
        highest = max(_tokenizer(self.tokenizer_json).get_vocab(with_added_tokens=True).values(), default=0)
        if isinstance(size, int) and highest >= size:
            raise DataError(
                f"The tokenizer of `{card.name}` has the id {highest}, and its weights know {size} tokens (0 to"
                f" {size - 1}). The tokenizer belongs to another model: put its own `tokenizer.json` beside them."
            )

    def clean(self, text: str) -> str:
        """Return a bare text, as a reader of tables cleans subject and body."""
        return self.cleaning.clean("", text)[0]

    def __call__(self, text: str) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask`` of one cleaned text, ``(L,)``, or ``(M, L)`` with ``chunks``."""
        rows = token_rows(_tokenizer(self.tokenizer_json), text, self.max_length, self.long_texts)
        if self.long_texts == "chunks":
            return self._tensors(rows)
        ids = torch.tensor(rows[0])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, special ones included, before anything is cut."""
        found = _tokenizer(self.tokenizer_json).encode_batch(list(texts))
        return [len(item.ids) for item in found]

    def collate(self, inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return a batch, padded to its longest text: ``input_ids``, ``attention_mask`` ``(N, L)``.

        With ``chunks`` the rows are the chunks of all texts, and ``chunk_of`` ``(M,)`` says of which text each is.
        """
        fill = {"input_ids": self.pad_id, "attention_mask": 0}
        if self.long_texts != "chunks":
            return {
                key: pad_sequence([item[key] for item in inputs], batch_first=True, padding_value=value)
                for key, value in fill.items()
            }
        counts = torch.tensor([len(item["input_ids"]) for item in inputs])
        rows = {
            key: pad_sequence([row for item in inputs for row in item[key]], batch_first=True, padding_value=value)
            for key, value in fill.items()
        }
        return {**rows, "chunk_of": torch.arange(len(inputs)).repeat_interleave(counts)}

    def _tensors(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        parts = [torch.tensor(row) for row in rows]
        return {
            "input_ids": pad_sequence(parts, batch_first=True, padding_value=self.pad_id),
            "attention_mask": pad_sequence([torch.ones_like(part) for part in parts], batch_first=True),
        }


@dataclass(frozen=True)
class _Longest:
    """How many tokens a backbone takes by default, and at most."""

    default: int
    possible: int


def _longest(card: BackboneCard) -> _Longest:
    """Ask the card how much its network can read."""
    config = card.architecture_config
    positions = config.get("max_position_embeddings") or _MANY_TOKENS
    if config.get("position_embedding_type", "absolute") == "absolute" and "roberta" in card.architecture:
        positions -= int(config.get("pad_token_id") or 0) + 1  # its positions are counted from behind the padding
    stated = [
        card.processor.get("sentence", {}).get("max_seq_length"),
        card.processor.get("tokenizer", {}).get("model_max_length"),
    ]
    sensible = [int(value) for value in stated if isinstance(value, int | float) and 0 < value <= positions]
    return _Longest(min([*sensible, positions, _MANY_TOKENS]), int(positions))


def _pad_id(card: BackboneCard) -> int:
    stated = card.architecture_config.get("pad_token_id")
    return stated if isinstance(stated, int) else 0


@lru_cache(maxsize=4)
def _tokenizer(text: str) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer
    """Return the tokenizer without its own padding and cutting; made once in each process."""
    return open_tokenizer(text)


def _read(text: str, name: str) -> Any:  # noqa: ANN401 - as above
    try:
        return _tokenizer(text)
    except ImportError as error:
        raise DataError("Texts need the package `tokenizers`. Run `pip install lightning-transfer[nlp]`.") from error
    except Exception as error:  # the library raises bare exceptions
        raise DataError(
            f"The tokenizer of `{name}` cannot be read: {error}. Its `tokenizer.json` is damaged."
        ) from error
