import base64
import io
import json
import shutil
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_run import write
from make_speech_run import make_records, make_sound, make_speech_fit, make_speech_test

from lightning_transfer.metrics import align
from lightning_transfer.reporting.alignments import alignments_section, cells, sounds
from lightning_transfer.reporting.run_files import RunFiles


def parts_of(said: str, heard: str) -> list[dict[str, Any]]:
    return [
        {"kind": part.kind, "reference": list(part.reference), "hypothesis": list(part.hypothesis)}
        for part in align(said, heard)
    ]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("call me back", "call my back please"),
        ("one two three", ""),
        ("", "one two"),
        ("a b c d", "x y"),
        ("the same", "the same"),
    ],
)
def test_what_was_said_and_what_was_heard_can_be_read_off_the_cells(said: str, heard: str) -> None:
    found = cells(parts_of(said, heard))
    assert " ".join(cell["said"] for cell in found if cell["said"]) == said
    right_or_heard = [cell["said"] if cell["kind"] == "equal" else cell["heard"] for cell in found]
    assert " ".join(filter(None, right_or_heard)) == heard


def test_of_long_right_runs_the_words_beside_errors_are_shown() -> None:
    words = [f"w{number}" for number in range(100)]
    said = " ".join([*words[:50], "wrong", *words[50:]])
    found = cells(parts_of(said, said.replace("wrong", "other")))
    assert [cell["kind"] for cell in found] == ["left_out", "equal", "substitute", "equal", "left_out"]
    assert found[0]["said"] == "44 words right"
    assert found[1]["said"] == " ".join(words[44:50])
    assert found[3]["said"] == " ".join(words[50:56])


def test_of_very_many_errors_the_rest_is_counted() -> None:
    found = cells(parts_of(" ".join(f"a{i}" for i in range(400)), " ".join(f"b{i}" for i in range(400))))
    assert len(found) == 161
    assert found[-1] == {"kind": "left_out", "said": "240 more errors", "heard": ""}


def test_the_worst_come_first_and_speakers_refer_to_them(tmp_path: Path) -> None:
    run = RunFiles.read(make_speech_test(make_speech_fit(tmp_path / "run"), sound=False))
    found = alignments_section(run)
    errors = [item["substitutions"] + item["insertions"] + item["deletions"] for item in found["worst"]]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 10
    shown = {item["id"] for item in found["worst"]}
    worst = found["speakers"][0]
    assert worst["speaker"] == "finn"
    assert set(worst["above"]) <= shown
    assert not shown & {item["id"] for row in found["speakers"] for item in row["worst"]}


def test_without_an_error_it_is_said(tmp_path: Path) -> None:
    folder = make_speech_fit(tmp_path / "run")
    records = make_records(folder.parent / "data")
    run = RunFiles.read(make_speech_test(folder, records, texts=[str(r.label) for r in records], sound=False))
    assert alignments_section(run)["missing"] == "No word was wrong on the test split."
    assert "left no `evaluation.json`" in alignments_section(RunFiles(folder))["missing"]


# ---- sound ---------------------------------------------------------------------------------------------------------


def decoded(address: str) -> tuple[int, np.ndarray]:
    assert address.startswith("data:audio/wav;base64,")
    with wave.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1])), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32767


def test_the_sound_of_the_worst_is_that_of_the_file(tmp_path: Path) -> None:
    run = RunFiles.read(make_speech_test(make_speech_fit(tmp_path / "run")))
    found, notes = sounds(run)
    assert notes == []
    assert list(found) == [item["id"] for item in run.evaluation["worst"][:5]]
    rate, samples = decoded(next(iter(found.values())))
    assert rate == 16_000
    assert len(samples) == pytest.approx(16_000, abs=2)
    times = np.arange(len(samples)) / rate
    expected = 0.3 * np.sin(2 * np.pi * 440 * times)
    assert np.abs(samples - expected)[200:-200].max() < 0.01


def test_only_the_piece_that_was_judged_is_embedded(tmp_path: Path) -> None:
    folder = make_speech_test(make_speech_fit(tmp_path / "run"))
    file = folder / "test" / "evaluation.json"
    values = json.loads(file.read_text())
    make_sound(tmp_path / "data" / "long.wav", seconds=40.0, silent=10.0)
    first = {**values["worst"][0], "path": str(tmp_path / "data" / "long.wav"), "start": 10.0, "duration": 2.5}
    second = {**values["worst"][1], "path": str(tmp_path / "data" / "long.wav"), "start": 0.0, "duration": None}
    write(file, {**values, "worst": [first, second]})
    found, notes = sounds(RunFiles.read(folder))
    lengths = [len(decoded(address)[1]) / 16_000 for address in found.values()]
    assert lengths == pytest.approx([2.5, 15.0], abs=0.01)
    loud = [np.abs(decoded(address)[1][:16_000]).max() for address in found.values()]
    assert loud[0] > 0.2 > 0.01 > loud[1], "the first begins where the sound does, the second in the silence"
    write(file, {**values, "worst": [{**second, "duration": 40.0}]})
    assert sounds(RunFiles.read(folder))[1] == ["Of 1 long utterances the first 15 s are embedded."]
    assert not notes


def test_no_file_outside_the_data_root_is_read(tmp_path: Path) -> None:
    folder = make_speech_test(make_speech_fit(tmp_path / "run"))
    make_sound(tmp_path / "elsewhere.wav")
    (tmp_path / "data" / "link.wav").symlink_to(tmp_path / "elsewhere.wav")
    (tmp_path / "data" / "not.wav").write_text("no sound")
    file = folder / "test" / "evaluation.json"
    values = json.loads(file.read_text())
    paths = ("../elsewhere.wav", str(tmp_path / "elsewhere.wav"), "link.wav", "not.wav", "gone.wav")
    write(file, {**values, "worst": [{**values["worst"][0], "id": path, "path": path} for path in paths]})
    found, notes = sounds(RunFiles.read(folder))
    assert found == {}
    assert notes == ["The sound of 5 of 5 utterances could not be read below the data root."]


def test_data_that_moved_and_a_manifest_without_a_root(tmp_path: Path) -> None:
    folder = make_speech_test(make_speech_fit(tmp_path / "run"))
    shutil.move(tmp_path / "data", tmp_path / "moved")
    assert "give `--data_root DIR`" in sounds(RunFiles.read(folder))[1][0]
    assert len(sounds(RunFiles.read(folder), str(tmp_path / "moved"))[0]) == 5
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        config.replace(f"root: {tmp_path / 'data'}", f"file: {tmp_path / 'moved' / 'train.jsonl'}")
    )
    assert len(sounds(RunFiles.read(folder))[0]) == 5
    (folder / "config.yaml").write_text(config.replace(f"root: {tmp_path / 'data'}", f"file: {tmp_path / 'moved'}"))
    assert len(sounds(RunFiles.read(folder))[0]) == 5
