"""What else changes: other verbs, a second fit, compiled code, the user's callbacks and epochs?"""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from benchmarks.correctness.contestants import BARE, Contestant, Settings
from benchmarks.correctness.outcome import Case, Row
from benchmarks.correctness.toys import STEPS, WIDTH, Recorder, Toy, backbone_of, sgd, trainer

__all__ = ["ROWS"]

EPOCHS, OPEN_AT = 3, 1


def measure_verb(verb: str, contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Fit, then run another verb with the same Trainer; see which parameters changed their ``requires_grad``."""
    module = Toy()
    run = trainer(contestant.callbacks(Settings(folder, EPOCHS, OPEN_AT)), EPOCHS)
    run.fit(module)
    before = {name: value.requires_grad for name, value in module.named_parameters()}
    getattr(run, verb)(module, **({} if verb == "predict" else {"verbose": False}))
    frozen = [name for name, value in module.named_parameters() if value.requires_grad != before[name]]
    return not frozen, f"{len(frozen)} of {len(before)} parameters changed"


def measure_second_fit(same_module: bool, contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Fit twice, with the same callback objects or the same module; the second must do what the first did."""
    wish = Settings(folder, EPOCHS, OPEN_AT)
    callbacks, module = contestant.callbacks(wish), Toy()
    records = []
    for index in range(2):
        if index and not same_module:
            module = Toy()
        elif index:
            callbacks = contestant.callbacks(wish)
        recorder = Recorder()
        trainer([*callbacks, recorder], EPOCHS).fit(module)
        records.append((recorder.trainable, recorder.rates))
    texts = [
        " ".join(str(len(trainable[epoch * STEPS])) for epoch in range(len(trainable) // STEPS))
        for trainable, _ in records
    ]
    same = records[0] == records[1]
    return same, "the same" if same else f"trainable by epoch {texts[0]}, then {texts[1] or 'no step at all'}"


def measure_fit_without(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Fit while the backbone is frozen, then fit the same module without any callback: all of it must train."""
    module, recorder = Toy(), Recorder()
    trainer(contestant.callbacks(Settings(folder, EPOCHS, None)), EPOCHS).fit(module)
    trainer([recorder], 1).fit(module)
    everything = {name for name, _ in module.named_parameters()}
    trained = everything & recorder.moved[-1]
    return trained == everything, f"{len(trained)} of {len(everything)} parameters train"


class _Plain(Toy):
    """No module of it asks for its mode: a new mode alone would make dynamo trace again."""

    def __init__(self) -> None:
        super().__init__(sgd)
        self.backbone = backbone_of(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3)))


def measure_compile(where: str, contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Compile the module or its backbone, and see whether what opens is trained; ``aot_eager`` needs no compiler."""
    torch.compiler.reset()
    module, recorder = _Plain(), Recorder()
    fitted = module
    if where == "module":
        fitted = torch.compile(module, backend="aot_eager")
    else:
        module.backbone = torch.compile(module.backbone, backend="aot_eager")
    try:
        trainer([*contestant.callbacks(Settings(folder, EPOCHS, OPEN_AT)), recorder], EPOCHS).fit(fitted)
    finally:
        torch.compiler.reset()
    names = {name for name in recorder._before if name.startswith("backbone")}
    early = names & set().union(*recorder.moved[:OPEN_AT])
    trained = names & recorder.moved[-1]
    text = f"{len(trained)} of {len(names)} opened tensors train" + (f", {len(early)} before" if early else "")
    return trained == names and not early, text


def measure_own_callbacks(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Add an EarlyStopping and a ModelCheckpoint; both must still be there at the end, as they were made."""

    def after(who: Contestant) -> tuple[bool, float, type]:
        stop = EarlyStopping("val_loss", min_delta=0.01, patience=50)
        save = ModelCheckpoint(folder / who.name, monitor="val_loss")
        wish = Settings(folder, EPOCHS, OPEN_AT, own_callbacks=True)
        run = trainer([*who.callbacks(wish), stop, save], EPOCHS)
        run.fit(Toy())
        kept = any(it is stop for it in run.callbacks) and any(it is save for it in run.callbacks)
        now = next((it for it in run.callbacks if isinstance(it, EarlyStopping)), None)
        # Lightning itself stores the delta with the sign of the mode.
        return kept, float("nan") if now is None else float(now.min_delta), type(now)

    kept, delta, kind = after(contestant)
    _, usual, _ = after(BARE)
    text = "kept" if kept else f"replaced by {kind.__name__}"
    return kept and delta == usual, text if delta == usual else f"{text}, min_delta {usual} became {delta}"


def measure_max_epochs(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Ask for 2 epochs with an opening planned at epoch 4, as in a short first run."""
    recorder = Recorder()
    run = trainer([*contestant.callbacks(Settings(folder, 2, 4)), recorder], 2)
    run.fit(Toy())
    return len(recorder.moved) == run.max_epochs == 2, f"{len(recorder.moved)} of 2 epochs"


ROWS = (
    Row(
        "verbs",
        "`validate`, `test`, `predict`; a second fit in the same process",
        "the verbs change no `requires_grad`; the second fit opens the same at the same rates; without the callback it "
        "trains everything",
        (
            *(
                Case(verb, lambda contestant, folder, verb=verb: measure_verb(verb, contestant, folder))
                for verb in ("validate", "test", "predict")
            ),
            Case("second fit, same callback", lambda who, folder: measure_second_fit(False, who, folder)),
            Case("second fit, same module", lambda who, folder: measure_second_fit(True, who, folder)),
            Case("second fit, without the callback", measure_fit_without),
        ),
    ),
    Row(
        "compile",
        "torch.compile (module and submodule)",
        "every tensor of the backbone moves after the opening, none before",
        (
            Case("module", lambda contestant, folder: measure_compile("module", contestant, folder)),
            Case("submodule", lambda contestant, folder: measure_compile("submodule", contestant, folder)),
        ),
    ),
    Row(
        "own-callbacks",
        "user's EarlyStopping, ModelCheckpoint, `max_epochs`",
        "the same objects with the same `min_delta`, and as many epochs as asked",
        (Case("callbacks", measure_own_callbacks), Case("max_epochs", measure_max_epochs)),
    ),
)
