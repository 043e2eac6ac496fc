"""One export that many tests read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch.export import ExportedProgram

from lightning_transfer.export import exported_facts, exported_network, trace, write_onnx
from lightning_transfer.modules import ClassificationModule
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
