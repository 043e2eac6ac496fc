"""What becomes of the user's optimizers, of their groups, and of the parameters in them?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from benchmarks.correctness.contestants import Contestant, Settings
from benchmarks.correctness.outcome import Case, Row
from benchmarks.correctness.toys import STEPS, WIDTH, Recorder, Toy, backbone_of, sgd, trainer

__all__ = ["ROWS"]

EPOCHS, OPEN_AT = 3, 1
FIRST = OPEN_AT * STEPS


def measure_all_parameters(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Give the optimizer ``self.parameters()``; see the head's rate, and whether the backbone trains once open."""
    recorder = Recorder()
    module = Toy(lambda toy: torch.optim.SGD(toy.parameters(), lr=0.1))
    trainer([*contestant.callbacks(Settings(folder, EPOCHS, OPEN_AT)), recorder], EPOCHS).fit(module)
    ratio = min(step["head.weight"] / 0.1 for step in recorder.rates)
    highest = max(step["head.weight"] / 0.1 for step in recorder.rates)
    extreme = ratio if abs(ratio - 1) >= abs(highest - 1) else highest
    trains = _backbone(recorder.moved[-1]) == _backbone(set(module.state_dict()))
    text = f"head's rate times {extreme:.3g}" + ("" if trains else ", the backbone does not train")
    return abs(extreme - 1) <= 1e-9 and trains, text


def measure_groups(everything: bool, contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Give three groups: backbone, its biases and norms without decay, and the head; see rates and decays after.

    The groups hold either all parameters, or those that train at the start. The optimizer's default decay is the
    backbone's, so that a group added later without one gets it.
    """
    decays = {"weights": 0.05, "biases": 0.0, "head": 0.2}

    def kind(name: str) -> str:
        if name.startswith("head"):
            return "head"
        return "biases" if name.endswith("bias") or is_norm(name) else "weights"

    def is_norm(name: str) -> bool:
        return name.split(".")[3:4] == ["1"]

    def configure(module: Toy) -> torch.optim.Optimizer:
        groups = []
        for part, decay in decays.items():
            named = module.named_parameters()
            values = [value for name, value in named if kind(name) == part and (everything or value.requires_grad)]
            if values:
                groups.append({"params": values, "weight_decay": decay, "lr": 0.01 if part == "head" else 0.001})
        return torch.optim.AdamW(groups, weight_decay=decays["weights"])

    module, recorder = Toy(configure), Recorder()
    module.no_decay = ["bias", *(f"blocks.{index}.1." for index in range(3))]
    # The user's own rates already differ by a factor of ten: no further one is asked for.
    wish = Settings(folder, EPOCHS, OPEN_AT, rate=0.01, ratio=0.1)
    if contestant.name == "ours":
        wish = Settings(folder, EPOCHS, OPEN_AT, rate=0.01, ratio=1.0)
    trainer([*contestant.callbacks(wish), recorder], EPOCHS).fit(module)
    rates, seen = recorder.rates[-1], recorder.decays[-1]
    names = [name for name, _ in module.named_parameters()]
    missing = [name for name in names if name not in rates]
    if missing:
        return False, f"{len(missing)} of {len(names)} parameters left out"
    wrong_rate = sum(abs(rates[name] - (0.01 if kind(name) == "head" else 0.001)) > 1e-12 for name in names)
    wrong_decay = sum(seen[name] != decays[kind(name)] for name in names)
    text = f"{wrong_rate} of {len(names)} parameters with another rate, {wrong_decay} with another decay"
    return wrong_rate == wrong_decay == 0, text


def measure_identity(open_at: int, contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Open a fresh transformer block while the head holds another: their norms and biases have equal values."""

    class Fresh(Toy):
        def __init__(self) -> None:
            super().__init__(sgd)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.backbone = backbone_of(_fresh_block())
                self.head = nn.Sequential(_fresh_block(), nn.Linear(WIDTH, 2))

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.backbone(x[:, None]))[:, 0]
            return scores

    module, recorder = Fresh(), Recorder()
    trainer([*contestant.callbacks(Settings(folder, EPOCHS, open_at)), recorder], EPOCHS).fit(module)
    names = {name for name, _ in module.named_parameters() if name.startswith("backbone")}
    trained = names & recorder.trainable[-1] & recorder.moved[-1]
    return trained == names, f"{len(trained)} of {len(names)} parameters train"


def _fresh_block() -> nn.Module:
    """Return a transformer block as ViT initialises it: biases 0, norms 1 and 0."""
    made = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0, batch_first=True)
    for name, value in made.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(value)
    return made


class _Manual(Toy):
    """Steps its optimizers by hand."""

    def __init__(self, two: bool) -> None:
        super().__init__(sgd)
        self.automatic_optimization = False
        self.two = two

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Return one optimizer, or one for the backbone and one for the head."""
        if not self.two:
            return sgd(self)
        backbone, head = self.backbone.parameters(), self.head.parameters()
        return [torch.optim.SGD(backbone, lr=0.01), torch.optim.SGD(head, lr=0.1)]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        """Do one step of each optimizer."""
        optimizers = self.optimizers() if self.two else [self.optimizers()]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        for optimizer in optimizers:
            optimizer.step()


class _Owners(Callback):
    """Counts, at the end, the optimizers that hold each parameter."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count."""
        held = [id(value) for it in trainer.optimizers for group in it.param_groups for value in group["params"]]
        self.counts = {name: held.count(id(value)) for name, value in pl_module.named_parameters()}


def measure_manual(two: bool, contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Optimize by hand; the backbone must stand still, then train, and belong to one optimizer."""
    module, recorder, owners = _Manual(two), Recorder(), _Owners()
    trainer([*contestant.callbacks(Settings(folder, EPOCHS, OPEN_AT)), owners, recorder], EPOCHS).fit(module)
    shared = sum(count > 1 for count in owners.counts.values())
    stands = not _backbone(set().union(*recorder.moved[:OPEN_AT]))
    trains = _backbone(recorder.moved[-1]) == _backbone(set(module.state_dict()))
    problems = [
        f"{shared} parameters in two optimizers" if shared else "",
        "" if stands else "the frozen backbone moved",
        "" if trains else "the opened backbone does not train",
    ]
    return not any(problems), ", ".join(filter(None, problems)) or "each parameter in one"


def measure_names(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Read the names that LearningRateMonitor logs after the opening: each must name a part of the module."""
    monitor = LearningRateMonitor("step")
    callbacks = [*contestant.callbacks(Settings(folder, EPOCHS, OPEN_AT)), monitor]
    trainer(callbacks, EPOCHS, logger=CSVLogger(folder), log_every_n_steps=1).fit(Toy())
    names = list(monitor.lrs)
    return all("blocks" in name or "head" in name for name in names), ", ".join(f"`{name}`" for name in names)


def _backbone(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("backbone")}


ROWS = (
    Row(
        "all-parameters",
        "optimizer over `self.parameters()`",
        "the head keeps the user's rate to 1e-9 in every step, and the opened backbone trains",
        (Case("", measure_all_parameters),),
    ),
    Row(
        "own-groups",
        "the user's own groups (rates, no-decay)",
        "after the opening every parameter has the rate and the decay of the user's group",
        (
            Case("of what trains at the start", lambda who, folder: measure_groups(False, who, folder)),
            Case("of all parameters", lambda who, folder: measure_groups(True, who, folder)),
        ),
    ),
    Row(
        "identity",
        "parameters told apart",
        "all 12 parameters of an opened fresh transformer block train",
        (
            Case("opened at epoch 0", lambda who, folder: measure_identity(0, who, folder)),
            Case("at epoch 1", lambda who, folder: measure_identity(1, who, folder)),
        ),
    ),
    Row(
        "manual",
        "two optimizers, manual optimization",
        "the backbone stands still, then trains, and every parameter is in one optimizer",
        (
            Case("two optimizers", lambda contestant, folder: measure_manual(True, contestant, folder)),
            Case("one", lambda contestant, folder: measure_manual(False, contestant, folder)),
        ),
    ),
    Row(
        "names",
        "names in LearningRateMonitor",
        "every name tells which part of the module it belongs to",
        (Case("", measure_names),),
    ),
)
