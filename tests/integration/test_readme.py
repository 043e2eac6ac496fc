"""The README's snippet is extracted and run, with both names of Lightning."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import squeezenet1_0

README = Path(__file__).parents[2] / "README.md"


def _snippet() -> str:
    found = re.search(r"<!-- test: snippet -->\n```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert found, "the README lost its marked snippet"
    return found.group(1)


def _loader(seed: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(torch.randn(8, 3, 64, 64, generator=generator), torch.arange(8) % 3), batch_size=4)


def test_the_snippet_has_few_lines() -> None:
    code = [line for line in _snippet().splitlines() if line and not line.startswith(("from", "import"))]
    assert len(code) <= 5


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_the_snippet_runs_in_a_project_that_is_not_ours(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lightning = import_module(package)
    monkeypatch.chdir(tmp_path)

    class Theirs(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = squeezenet1_0(num_classes=3)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)]

    torch.manual_seed(0)
    model = Theirs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    namespace: dict[str, Any] = {
        "Trainer": lambda **options: lightning.Trainer(
            **options, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
        ),
        "model": model,
        "train_loader": _loader(0),
        "source_loader": _loader(1),
    }
    exec(compile(_snippet(), str(README), "exec"), namespace)  # noqa: S102 - the README is ours, and running it is the test
    trainer = namespace["trainer"]
    assert trainer.current_epoch == 6
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    # Gradual: the head first, one group an epoch. After six epochs the top groups moved, the stem did not.
    assert "model.classifier.1.weight" in moved
    assert "model.features.12.squeeze.weight" in moved
    assert "model.features.0.weight" not in moved
    assert all(parameter.requires_grad for parameter in model.parameters()), "a fit puts back what it froze"
    assert namespace["forgetting"].history, "nothing was measured"
