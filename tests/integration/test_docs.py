"""The code of the pages is run, and the tests that they name exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

from benchmarks.correctness.rows import ROWS
from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, loader, trainer
from tests.unit.callbacks.test_discriminative_lr import Rates

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: str) -> dict[str, str]:
    found = re.findall(r"<!-- test: (.+?) -->\n```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    return dict(found)


WRONG = blocks("how_to/what_goes_wrong.md")
MOVE = blocks("how_to/move_from_other_callbacks.md")


def run(code: str, **names: Any) -> dict[str, Any]:
    namespace = {"Callback": Callback, "torch": torch, **names}
    exec(compile(code, "a page's code", "exec"), namespace)  # noqa: S102 - the page is ours, and running it is the test
    return namespace


def theirs(**options: Any) -> Any:
    return BackboneFinetuning(1, lambda epoch: 1.0, train_bn=False, **options)


def mine(schedule: str = "lp_ft") -> Any:
    return BackboneFreezeUnfreeze(schedule, verbose=False)


def filtered(module: Any) -> Any:
    return torch.optim.SGD((value for value in module.parameters() if value.requires_grad), lr=0.1)


def decaying(module: Any) -> Any:
    optimizer = filtered(module)
    return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


class Plain(Toy):  # type: ignore[misc, valid-type]
    def __init__(self) -> None:
        super().__init__(filtered)
        self.backbone = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)))


def last_callback(key: str, freeze: Any, capsys: Any, module: Any = None, **fit: Any) -> list[str]:
    """Train with the page's callback at the end of the list, and return what it prints."""
    found = [value for value in run(WRONG[key]).values() if isinstance(value, type) and value is not Callback]
    capsys.readouterr()
    trainer([freeze, found[0]()], 3, limit_val_batches=0).fit(module or Toy(filtered), **fit)
    return capsys.readouterr().out.splitlines()


def resumed(freeze: Callable[[], Any], capsys: Any, tmp_path: Path) -> tuple[list[str], list[str]]:
    half = trainer([freeze()], 2, limit_val_batches=0)
    half.fit(Toy(filtered))
    half.save_checkpoint(tmp_path / "two.ckpt")
    whole = last_callback("resume", freeze(), capsys)
    return whole, last_callback("resume", freeze(), capsys, ckpt_path=tmp_path / "two.ckpt")


def test_resume_shows(capsys: Any, tmp_path: Path) -> None:
    whole, again = resumed(theirs, capsys, tmp_path)
    assert again != whole[2:]
    whole, again = resumed(mine, capsys, tmp_path)
    assert again == whole[2:] == ["epoch 2: 176 parameters train"]


@pytest.mark.parametrize("ok", [False, True])
def test_rates_show(ok: bool, capsys: Any) -> None:
    lines = last_callback("rates", mine() if ok else theirs(), capsys, Toy(decaying))
    rates = [[float(text) for text in re.findall(r"[\d.e-]+", line.partition("[")[2])] for line in lines]
    ratios = {round(row[-1] / row[0], 6) for row in rates[4:]}
    assert (len(ratios) == 1) == ok


@pytest.mark.parametrize("ok", [False, True])
def test_drift_shows(ok: bool, capsys: Any) -> None:
    freeze = mine("feature_extraction") if ok else BackboneFinetuning(100, train_bn=False)
    run(WRONG["drift"], module=Toy(filtered), trainer=trainer([freeze], 2), loader=loader())
    assert (float(capsys.readouterr().out) == 0) == ok


@pytest.mark.parametrize("ok", [False, True])
def test_modes_show(ok: bool, capsys: Any) -> None:
    lines = last_callback("modes", mine() if ok else theirs(), capsys)
    assert (lines[0] == "epoch 0: 0 parts of the backbone are in train mode") == ok
    everything = len(list(Toy().backbone.modules()))
    assert lines[-1] == f"epoch 2: {everything} parts of the backbone are in train mode"


@pytest.mark.parametrize("ok", [False, True])
def test_what_is_held_twice_or_never_shows(ok: bool, capsys: Any) -> None:
    class Fresh(Toy):  # type: ignore[misc, valid-type]
        """Its blocks' biases and norms are all equal, and so are the head's."""

        def __init__(self) -> None:
            super().__init__(filtered, norm="layer")
            self.head = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2))
            for block in self.backbone.blocks:
                nn.init.zeros_(block.linear.bias)

    freeze = mine("full") if ok else BackboneFinetuning(0)
    lines = last_callback("held", freeze, capsys, Fresh())
    assert (lines == []) == ok
    assert all(line.endswith("is in 0 optimizers") for line in lines)


@pytest.mark.parametrize("ok", [False, True])
def test_groups_show(ok: bool, capsys: Any) -> None:
    def groups(module: Any) -> Any:
        named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
        biases = [value for name, value in named if name.endswith("bias")]
        others = [value for name, value in named if not name.endswith("bias")]
        return torch.optim.AdamW([{"params": others}, {"params": biases, "weight_decay": 0.0}], weight_decay=0.1)

    run_ = trainer([mine(), DiscriminativeLR()] if ok else [theirs()], 2, limit_val_batches=0)
    run_.fit(Toy(groups))
    run(WRONG["groups"], trainer=run_)
    expected = ["7 0.001 0.1", "7 0.001 0.0"]
    assert (capsys.readouterr().out.splitlines() == expected) == ok


@pytest.mark.parametrize("ok", [False, True])
def test_verbs_show(ok: bool, capsys: Any) -> None:
    module = Toy(filtered)
    run(WRONG["verbs"], module=module, trainer=trainer([mine() if ok else theirs()], 2), loader=loader())
    assert (capsys.readouterr().out.strip() == "0 tensors are frozen") == ok


@pytest.mark.parametrize("ok", [False, True])
def test_compiled_code_shows(ok: bool, capsys: Any) -> None:
    torch.compiler.reset()
    module = Plain()
    module.backbone = torch.compile(module.backbone, backend="aot_eager")
    freeze = BackboneFreezeUnfreeze("lp_ft", backbone="backbone", verbose=False) if ok else theirs()
    run(WRONG["compiled"], module=module, trainer=trainer([freeze], 2, limit_val_batches=0), loader=loader())
    assert (capsys.readouterr().out.strip() == "[]") == ok


@pytest.mark.parametrize("ok", [False, True])
def test_backward_shows(ok: bool, capsys: Any) -> None:
    module = Toy(filtered)
    run(WRONG["backward"], module=module)
    freeze = mine("feature_extraction") if ok else BackboneFinetuning(100, train_bn=False)
    trainer([freeze], 1, limit_val_batches=0).fit(module)
    assert set(capsys.readouterr().out.splitlines()) == {f"needs a backward pass: {not ok}"}


def test_callbacks_show(capsys: Any) -> None:
    run_ = trainer([mine()], 2)
    run_.fit(Toy())
    run(WRONG["callbacks"], trainer=run_)
    assert capsys.readouterr().out.strip() == "2 ['BackboneFreezeUnfreeze']"


RANKS = """
import sys
import torch
from lightning.pytorch import Callback
from tests.integration.test_docs import WRONG, Toy, filtered, mine, run, theirs, trainer

check = run(WRONG["ranks"])["SameOnAllRanks"]()
freeze = mine() if sys.argv[1] == "True" else theirs()
trainer([freeze, check], 3, limit_val_batches=0, strategy="ddp_fork", devices=2).fit(Toy(filtered, norm="layer"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ok", [False, True])
def test_ranks_show(ok: bool) -> None:
    command = [sys.executable, "-c", RANKS, str(ok)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode == 0) == ok, done.stderr[-3000:]
    assert ("AssertionError: epoch 1" in done.stderr) != ok


def test_every_block_of_the_page_is_run() -> None:
    source = Path(__file__).read_text()
    assert len(WRONG) == 11
    assert all(f'"{key}"' in source for key in WRONG)
    for page in ("how_to/what_goes_wrong.md", "how_to/move_from_other_callbacks.md"):
        assert len(re.findall("```python", (DOCS / page).read_text())) == len(blocks(page))


@pytest.mark.parametrize("name", ["backbone-finetuning", "finetuning-scheduler"])
def test_before_and_after_train_the_same_layers(name: str, tmp_path: Path) -> None:
    """By epoch, before and after: how many tensors train."""
    if name == "finetuning-scheduler":
        pytest.importorskip("finetuning_scheduler")
    counts = []
    for when in ("before", "after"):
        found = run(MOVE[f"{name} {when}"])
        module, watch = Toy(found.get("configure_optimizers", filtered), norm="layer"), Rates()
        seen: list[int] = []

        class Count(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                seen.append(sum(value.requires_grad for value in pl_module.parameters()))  # noqa: B023

        path = tmp_path / when
        run_ = trainer([*found["callbacks"], watch, Count()], 6, enable_checkpointing=True, default_root_dir=path)
        run_.fit(module)
        counts.append(seen)
    assert counts[0] == counts[1]
    assert len(set(counts[0])) > 1


def test_the_table_of_arguments_has_them_all() -> None:
    import inspect

    text = (DOCS / "how_to/move_from_other_callbacks.md").read_text()
    missing = [name for name in inspect.signature(BackboneFinetuning).parameters if name not in text]
    assert missing == ["rounding"]


def test_named_tests_exist() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for page in ("reference/limits.md", "developer/correctness.md"):
        names = re.findall(r"`(test_\w+)", (DOCS / page).read_text())
        assert len(names) > 10
        assert not [name for name in names if f"def {name}(" not in tests], page


def test_every_row_of_the_comparison_has_its_tests() -> None:
    text = (DOCS / "developer/correctness.md").read_text()
    assert [row.key for row in ROWS if f"| `{row.key}`" not in text and f", `{row.key}`" not in text] == []
