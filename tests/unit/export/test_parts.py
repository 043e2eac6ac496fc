from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_transfer
from lightning_transfer.export import parts, predict_onnx_speech, predict_onnx_text
from lightning_transfer.export.parts import PARTS, SPEECH_PARTS, needed_files, write_script

ROOT = Path(lightning_transfer.__file__).parent


def write(folder: Path, files: dict[str, str]) -> Path:
    """A package of the same name elsewhere."""
    root = folder / "lightning_transfer"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def make(**files: str) -> Path:
        root = write(tmp_path, {name.replace("__", "/") + ".py": text for name, text in files.items()})
        monkeypatch.setattr(parts, "_ROOT", root)
        return root

    return make


def test_files_are_followed_to_the_end_but_not_for_types(package) -> None:
    root = package(
        script="from typing import TYPE_CHECKING\nfrom lightning_transfer.a.one import x\n",
        a__one="def f():\n    from lightning_transfer.b.two import y\n",
        b__two="from lightning_transfer.a.one import x\n"
        "if TYPE_CHECKING:\n    from lightning_transfer.heavy import z\n",
        heavy="import torch\n",
    )
    assert needed_files(root / "script.py") == [root / "a" / "one.py", root / "b" / "two.py"]


def test_a_whole_package_and_two_files_of_one_name_are_refused(package) -> None:
    root = package(script="from lightning_transfer.a import x\n", a__one="")
    with pytest.raises(ValueError, match=r"imports `lightning_transfer\.a`, which is no single file"):
        needed_files(root / "script.py")
    root = package(
        script="from lightning_transfer.a.one import x\nfrom lightning_transfer.b.one import y\n", a__one="", b__one=""
    )
    with pytest.raises(ValueError, match="have one name"):
        needed_files(root / "script.py")


def test_what_is_written_runs_without_the_package(package, tmp_path: Path) -> None:
    root = package(
        script="from lightning_transfer.a.one import name\nprint(name())\n",
        a__one="from lightning_transfer.b.two import SECOND\n\n\ndef name():\n"
        "    from lightning_transfer.b.three import THIRD\n\n    return SECOND + THIRD\n",
        b__two="SECOND = 2\n",
        b__three="THIRD = 3\n",
    )
    place = tmp_path / "elsewhere"
    place.mkdir()
    write_script(root / "script.py", place)
    assert {path.name for path in place.rglob("*.py")} == {"script.py", "__init__.py", "one.py", "two.py", "three.py"}
    done = subprocess.run([sys.executable, "script.py"], cwd=place, capture_output=True, text=True, env={})
    assert done.stdout == "5\n", done.stderr


def test_the_script_for_texts_needs_few_files_and_changes_nothing_but_imports(tmp_path: Path) -> None:
    script = Path(predict_onnx_text.__file__)
    names = {file.relative_to(ROOT).as_posix() for file in needed_files(script)}
    assert "data/texts_clean.py" in names
    assert len(names) < 20
    write_script(script, tmp_path)
    for file in needed_files(script):
        before, after = file.read_text().splitlines(), (tmp_path / PARTS / file.name).read_text().splitlines()
        changed = [line for line, old in zip(after, before, strict=True) if line != old]
        assert all(line.lstrip().startswith("from .") for line in changed)
        assert not any(line.lstrip().startswith("from lightning_transfer") for line in after)


def test_the_script_for_speech_has_a_folder_of_its_own(tmp_path: Path) -> None:
    script = Path(predict_onnx_speech.__file__)
    write_script(script, tmp_path, SPEECH_PARTS)
    names = {path.name for path in (tmp_path / SPEECH_PARTS).iterdir()}
    assert names == {file.name for file in needed_files(script)} | {"__init__.py"}
    assert "audio_preprocessing.py" not in names
    text = (tmp_path / "predict_onnx_speech.py").read_text()
    assert "from speech_parts.speech_decode import Heard, greedy, join" in text
    assert "from lightning_transfer" not in text
