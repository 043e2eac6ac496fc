"""Read a Kaldi data folder as rows; a command in ``wav.scp`` is refused, never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightning_transfer.data.texts_tables import Row
from lightning_transfer.errors import DataError, listing

__all__ = ["KALDI_COLUMNS", "kaldi_rows"]

KALDI_COLUMNS = ("id", "path", "text", "speaker", "offset", "duration")


def kaldi_rows(folder: Path) -> Iterator[Row]:
    r"""Yield a row for each utterance, with the columns ``id, path, text, speaker, offset, duration``.

    Utterances are the lines of ``segments``, or of ``wav.scp`` where there are none. ``text`` and ``utt2spk`` may be
    missing, as a whole or for an utterance: the cell is then left out. Rows that cannot be used say why in ``problem``.

    Args:
        folder: With ``wav.scp``.

    Raises:
        DataError: If ``wav.scp`` is missing, or a file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "wav.scp").write_text("call-1 a.wav\ncall-2 sph2pipe -f wav b.sph |\n")
        ...     _ = Path(folder, "text").write_text("call-1 yes please\n")
        ...     [(row.values["id"], row.values.get("text"), row.problem[:24]) for row in kaldi_rows(Path(folder))]
        [('call-1', 'yes please', ''), ('call-2', None, 'wav.scp has the command ')]
    """
    listed = list(_lines(folder / "wav.scp"))
    sounds = dict(listed)
    texts = dict(_lines(folder / "text")) if (folder / "text").is_file() else {}
    speakers = dict(_lines(folder / "utt2spk")) if (folder / "utt2spk").is_file() else {}
    if (folder / "segments").is_file():
        utterances = [(name, rest.split()) for name, rest in _lines(folder / "segments")]
    else:
        utterances = [(name, [name]) for name, _ in listed]
    known = {name for name, _ in utterances}
    utterances += [(name, []) for name in texts if name not in known]
    for place, (name, parts) in enumerate(utterances):
        values = {"id": name, "text": texts.get(name), "speaker": speakers.get(name)}
        problem = ""
        if not parts:
            problem = f"`{name}` is in `text` and has no recording"
        elif len(parts) not in (1, 3):
            problem = f"the line of `{name}` in `segments` is not `utterance recording start end`"
        elif parts[0] not in sounds:
            problem = f"the recording `{parts[0]}` is not in `wav.scp`"
        else:
            sound = sounds[parts[0]]
            values["path"] = sound
            if sound.endswith("|") or sound.startswith("|"):
                problem = (
                    f"wav.scp has the command `{sound}`; commands are never run. Write its output to a file, and name"
                    " that"
                )
            elif len(parts) == 3:
                values["offset"] = parts[1]
                begin, end = _number(parts[1]), _number(parts[2])
                if begin is None or end is None:
                    problem = f"`segments` has no times for `{name}`: `{parts[1]} {parts[2]}`"
                elif end >= 0:  # -1 is the end of the recording
                    values["duration"] = str(end - begin)
        yield Row(place, place + 1, {key: value for key, value in values.items() if value is not None}, problem)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the first word of each line, and the rest."""
    try:
        content = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        beside = listing(sorted(item.name for item in file.parent.iterdir())) if file.parent.is_dir() else "none"
        raise DataError(
            f"The Kaldi folder `{file.parent}` has no `{file.name}`. Files there: {beside or 'none'}."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"`{file}` is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"Cannot read `{file}`: {error.strerror or error}.") from error
    for line in content.split("\n"):
        name, _, rest = line.strip().partition(" ") if " " in line.strip() else line.strip().partition("\t")
        if name:
            yield name, rest.strip()
