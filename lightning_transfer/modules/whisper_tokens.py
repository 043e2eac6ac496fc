"""Whisper's texts: the tokens that say language and task, and what was written as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.data.texts_ids import open_tokenizer
from lightning_transfer.errors import closest, listing
from lightning_transfer.types import BackboneCard

__all__ = ["WhisperTokens"]

_START, _END, _NO_TIMES = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
_FIRST_MULTILINGUAL = 51865
"""Size of the vocabulary from which on OpenAI's models know several languages."""


class WhisperTokens:
    """Know how a text begins and ends for Whisper, and read tokens back.

    Args:
        card: Its ``processor`` holds ``tokenizer_json`` and ``generation``.
        language: Code or English name, such as ``de`` or ``german``; None for a model of English alone.
        task: ``translate`` writes English, whatever is spoken.

    Raises:
        MisconfigurationException: If the card has no tokenizer, or the model does not know the language.
    """

    def __init__(
        self, card: BackboneCard, language: str | None, task: Literal["transcribe", "translate"] = "transcribe"
    ) -> None:
        text = str(card.processor.get("tokenizer_json") or "")
        if not text:
            raise MisconfigurationException(
                f"The card of `{card.name}` holds no tokenizer, so nothing says which tokens a text has. Put the "
                "model's `tokenizer.json` beside its weights."
            )
        self._tokenizer: Any = open_tokenizer(text)
        self.generation: Mapping[str, Any] = card.processor.get("generation") or {}
        config = card.architecture_config
        self.settings: Mapping[str, Any] = self.generation or config
        """What of the model decides which tokens may be written."""
        self.start = int(config.get("decoder_start_token_id") or self._id(_START))
        self.end = self._id(_END) if self._has(_END) else int(config["eos_token_id"])
        known = self.generation.get("is_multilingual")
        self.is_multilingual = bool(int(config.get("vocab_size", 0)) >= _FIRST_MULTILINGUAL if known is None else known)
        self.prompt = self._prompt(card.name, language, task)
        # Special tokens, and behind them the times: what is no text.
        self._first_time = self._id(_NO_TIMES) if self._has(_NO_TIMES) else None

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows."""
        stated = self.generation.get("lang_to_id")
        names = stated if stated else [name for name in self._tokenizer.get_vocab() if _is_language(name)]
        return tuple(sorted(name.strip("<|>") for name in names))

    def labels(self, text_tokens: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return what the decoder is given, and what it should write at each place.

        Args:
            text_tokens: Of one text; special ones among them are left out.
        """
        body = [token for token in text_tokens if token >= 0 and not self._is_special(token)]
        whole = [*self.prompt, *body, self.end]
        return whole[:-1], whole[1:]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return tokens as text: up to the first end, without special tokens and times."""
        body = []
        for token in tokens:
            if token == self.end:
                break
            if token >= 0 and not self._is_special(token):
                body.append(token)
        text: str = self._tokenizer.decode(body, skip_special_tokens=True)
        return text.strip()

    def is_text(self, token: int) -> bool:
        """Say whether a token is part of a text."""
        return token >= 0 and token != self.end and not self._is_special(token)

    def _is_special(self, token: int) -> bool:
        if self._first_time is not None and token >= self._first_time:
            return True
        name = self._tokenizer.id_to_token(token)
        return name is None or (name.startswith("<|") and name.endswith("|>"))

    def _prompt(self, name: str, language: str | None, task: str) -> tuple[int, ...]:
        times = (self._id(_NO_TIMES),) if self._has(_NO_TIMES) else ()
        if not self.is_multilingual:
            if language not in (None, "en", "english") or task != "transcribe":
                raise MisconfigurationException(
                    f"`{name}` knows English alone, and `language: {language}`, `task: {task}` asks for more. Leave "
                    "both out, or use a multilingual Whisper."
                )
            return (self.start, *times)
        if language is None:
            raise MisconfigurationException(
                f"`{name}` knows {len(self.languages)} languages. Say which is spoken: `language: en`."
            )
        code = _code(language)
        if code not in self.languages:
            raise MisconfigurationException(
                f"`{name}` does not know the language `{language}`.{closest(code, self.languages)} It knows "
                f"{listing(self.languages, 30)}."
            )
        return (self.start, self._id(f"<|{code}|>"), self._id(f"<|{task}|>"), *times)

    def _has(self, token: str) -> bool:
        return self._tokenizer.token_to_id(token) is not None

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise MisconfigurationException(
                f"The tokenizer has no `{token}`. It is none of Whisper's: put the model's own `tokenizer.json` beside "
                "its weights."
            )
        return int(found)


def _is_language(token: str) -> bool:
    name = token[2:-2]
    return token.startswith("<|") and token.endswith("|>") and 2 <= len(name) <= 3 and name.isalpha()


def _code(language: str) -> str:
    """Return the code of a language that may be given by its English name."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    plain = language.lower().strip("<|>")
    return str(TO_LANGUAGE_CODE.get(plain, plain))
