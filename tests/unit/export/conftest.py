"""One export that many tests read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch.export import ExportedProgram

from lightning_transfer.export import (
    SPEECH_PARTS,
    exported_facts,
    exported_network,
    predict_onnx_speech,
    predict_onnx_text,
    speech_facts,
    speech_network_facts,
    trace,
    trace_speech,
    trace_texts,
    write_onnx,
    write_script,
)
from lightning_transfer.modules import ClassificationModule, CTCModule
from tests.unit.export import speech_toys, text_toys
from tests.unit.export.export_toys import CALIBRATION, SIZE, classifier, save, write_pictures


@dataclass(frozen=True)
class Exported:
    folder: Path
    module: ClassificationModule
    program: ExportedProgram
    facts: dict
    onnx: Path
    pictures: list[Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    module = classifier()
    save(folder, module)
    facts = exported_facts(module.card, module.schema, CALIBRATION)
    program = trace(exported_network(module), (3, *SIZE))
    write_onnx(program, folder / "model.onnx", facts)
    (folder / "pictures").mkdir()
    return Exported(folder, module, program, facts, folder / "model.onnx", write_pictures(folder / "pictures"))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, as transformers saves it."""
    return text_toys.backbone_folder(tmp_path_factory.mktemp("backbone"))


@dataclass(frozen=True)
class ExportedTexts:
    folder: Path
    module: ClassificationModule
    program: ExportedProgram
    facts: dict
    onnx: Path


@pytest.fixture(scope="session")
def exported_texts(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportedTexts:
    """A router with its script and its tokenizer."""
    folder = tmp_path_factory.mktemp("exported_texts")
    module = text_toys.router(backbone)
    text_toys.save(folder, module)
    facts = exported_facts(module.card, module.schema, text_toys.CALIBRATION)
    program = trace_texts(exported_network(module), module.schema.preprocessing["max_length"])
    write_onnx(program, folder / "model.onnx", facts)
    write_script(Path(predict_onnx_text.__file__), folder)
    (folder / "tokenizer.json").write_bytes(module.card.processor["tokenizer_json"].encode())
    return ExportedTexts(folder, module, program, facts, folder / "model.onnx")


@dataclass(frozen=True)
class ExportedSpeech:
    folder: Path
    module: CTCModule
    program: ExportedProgram
    facts: dict
    onnx: Path
    sounds: list[Path]


@pytest.fixture(scope="session")
def exported_speech(tmp_path_factory: pytest.TempPathFactory) -> ExportedSpeech:
    """A recogniser with its script, and recordings, of which two are longer than a piece."""
    folder = tmp_path_factory.mktemp("exported_speech")
    module = speech_toys.recogniser()
    speech_toys.save(folder, module)
    facts = speech_facts(module.card, module.schema, speech_network_facts(module))
    program = trace_speech(exported_network(module), 40)
    write_onnx(program, folder / "model.onnx", facts)
    write_script(Path(predict_onnx_speech.__file__), folder, SPEECH_PARTS)
    (folder / "sounds").mkdir()
    sounds = speech_toys.write_sounds(folder / "sounds")
    return ExportedSpeech(folder, module, program, facts, folder / "model.onnx", sounds)
