"""All three callbacks on transformers models that PEFT wraps, built from configs, without weights to fetch."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR, ForgettingMonitor
from tests.unit.callbacks.callback_toys import Watch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

# Weights larger than the default of 0.02, so that inputs can be told apart after three random blocks.
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 2,
    "initializer_range": 0.3,
}
LAYER = re.compile(r"\.layers?\.(\d)\.")


def bert(dropout: float) -> nn.Module:
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = transformers.BertConfig(vocab_size=40, max_position_embeddings=24, **SIZES, **drop)
    return transformers.BertForSequenceClassification(config)


def vit(dropout: float) -> nn.Module:
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=16, patch_size=4, **SIZES, **drop))


# The part of a block's names that differs between versions of transformers is left to a regex.
MLP = r".*\.(intermediate\.dense|fc1)"
KEYS = r".*\.(key|k_proj)"
CASES: dict[str, tuple[Any, Any]] = {
    "bert-lora": (bert, lambda: peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])),
    # Without a task type PEFT's model names no arguments.
    "bert-untyped": (bert, lambda: peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])),
    "bert-ia3": (
        bert,
        lambda: peft.IA3Config(task_type="SEQ_CLS", target_modules=f"{KEYS}|{MLP}", feedforward_modules=MLP),
    ),
    "bert-prompt": (bert, lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)),
    "bert-prefix": (bert, lambda: peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)),
    "vit-lora": (
        vit,
        lambda: peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["classifier"]),
    ),
    "vit-ia3": (
        vit,
        lambda: peft.IA3Config(target_modules=f"{KEYS}|{MLP}", feedforward_modules=MLP, modules_to_save=["classifier"]),
    ),
}
# Adapters that sit in layers; the others lie beside the model.
IN_LAYERS = [name for name in CASES if "prompt" not in name and "prefix" not in name]


class Texts(Dataset):
    """Sixteen texts of six to eight tokens, with padding; label by whether the first token is even."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(3, 40, (8,), generator=torch.Generator().manual_seed(index))
        mask = torch.ones(8, dtype=torch.long)
        mask[8 - index % 3 :] = 0
        return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids[0] % 2}


class Images(Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(index))
        return {"pixel_values": image, "labels": (image.mean() > 0).long()}


class Project(LightningModule):
    """A project that is not ours: the loss is the model's own, the optimizer holds what PEFT left to train."""

    def __init__(self, case: str, everything: bool = False, dropout: float = 0.1) -> None:
        super().__init__()
        make, config = CASES[case]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.plain = [make(dropout)]  # in a list, so that it is no submodule: what was pretrained
            self.model = peft.get_peft_model(deepcopy(self.plain[0]), config())
        self.data = Texts() if case.startswith("bert") else Images()
        self.everything = everything
        self.start = {name: value.detach().clone() for name, value in self.named_parameters()}
        self.left_open = {name for name, value in self.named_parameters() if value.requires_grad}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.model(**batch).loss

    def configure_optimizers(self) -> Any:
        parameters = [value for value in self.parameters() if value.requires_grad or self.everything]
        return torch.optim.AdamW(parameters, lr=0.05)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.data, batch_size=4)

    def moved(self) -> set[str]:
        return {name for name, value in self.named_parameters() if not torch.equal(value, self.start[name])}


def fit(project: Project, callbacks: list[Any], epochs: int = 4, **options: Any) -> Trainer:
    torch.manual_seed(1)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(project, **options)
    return trainer


def layer_of(name: str) -> int | None:
    """The block of the full model that a parameter sits in; written on the names, not asked of `depth`."""
    found = LAYER.search(name)
    return int(found.group(1)) if found and "prompt_encoder" not in name else None


def is_head(name: str) -> bool:
    return "classifier" in name or "prompt_encoder" in name


def gradual() -> BackboneFreezeUnfreeze:
    return BackboneFreezeUnfreeze("gradual", verbose=False)


def source_probe(project: Project) -> ForgettingMonitor:
    return ForgettingMonitor(
        DataLoader(project.data, batch_size=8), metrics=("cosine", "cka"), max_overhead=None, every_n_epochs=1
    )


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_adapters_open_by_the_depth_of_the_full_model(case: str, everything: bool) -> None:
    project, watch = Project(case, everything), Watch()
    assert project.left_open < project.start.keys()
    callback = gradual()
    fit(project, [callback, watch])
    for epoch in range(4):
        wanted = {
            name
            for name in project.left_open
            if is_head(name) or (layer_of(name) is not None and layer_of(name) >= 3 - epoch)
        }
        assert watch.trains[4 * epoch] == watch.trains[4 * epoch + 3] == wanted
    assert project.moved() <= project.left_open
    moved_layers = {layer_of(name) for name in project.moved()} - {None}
    assert moved_layers == ({0, 1, 2} if case in IN_LAYERS else set())
    assert {name for name, value in project.named_parameters() if value.requires_grad} == project.left_open


@pytest.mark.parametrize("case", IN_LAYERS)
def test_adapters_have_the_rate_of_the_layer_that_they_sit_in(case: str) -> None:
    project, watch = Project(case, everything=True), Watch()
    rates = DiscriminativeLR(layer_decay=0.5, multipliers={"head": 2.0})
    # The names are those of the model before it was wrapped.
    assert list(rates.factors(project)) == list(rates.factors(project.plain[0]))
    fit(project, [rates, gradual(), watch], epochs=1)
    assert watch.rates[0].keys() == project.start.keys()
    adapters = {name for name in project.left_open if layer_of(name) is not None}
    assert len(adapters) >= 6
    for name in adapters:
        assert watch.rates[0][name] == pytest.approx(0.05 * 0.5 ** (3 - layer_of(name)))
    for name in project.left_open - adapters:
        assert watch.rates[0][name] == pytest.approx(0.1)


def test_a_wrapper_whose_class_was_exchanged_is_still_one() -> None:
    """As FSDP2 does it: a subclass made on the spot takes the place of a module's class."""
    project = Project("bert-lora")
    for module in (project.model, project.model.base_model):
        module.__class__ = type(f"FSDP{type(module).__name__}", (type(module),), {"__module__": "torch.distributed"})
    assert list(DiscriminativeLR().factors(project)) == list(DiscriminativeLR().factors(project.plain[0]))


def test_prompts_have_the_heads_rate() -> None:
    for case in ("bert-prompt", "bert-prefix"):
        project, watch = Project(case), Watch()
        fit(project, [DiscriminativeLR(layer_decay=0.5), watch], epochs=1)
        assert any("prompt_encoder" in name for name in watch.rates[0])
        assert set(watch.rates[0].values()) == {0.05}


@pytest.mark.parametrize("case", IN_LAYERS)
def test_adapters_that_open_are_warmed_up_again(case: str) -> None:
    project, watch = Project(case), Watch()
    fit(project, [DiscriminativeLR(total_ratio=1.0, rewarm_steps=4), gradual(), watch], epochs=2)
    top = next(name for name in project.left_open if layer_of(name) == 2)
    assert [rates[top] for rates in watch.rates[4:]] == pytest.approx([0.05 * step / 4 for step in (1, 2, 3, 4)])


def features(model: nn.Module, project: Project) -> torch.Tensor:
    """What enters the classifier of a transformers model, by its own forward and without our reader."""
    seen: list[torch.Tensor] = []
    classifier = model.get_submodule(next(name for name, _ in model.named_modules() if name.endswith("classifier")))
    handle = classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.eval()
    batch = next(iter(DataLoader(project.data, batch_size=16)))
    with torch.no_grad():
        model(**{key: value for key, value in batch.items() if key != "labels"})
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("case", CASES)
def test_forgetting_is_measured_with_the_adapters_and_is_nothing_before_the_first_step(case: str) -> None:
    project = Project(case)
    monitor = source_probe(project)
    reference = features(deepcopy(project.model), project)
    if case in IN_LAYERS:
        # LoRA's B is zero and IA3's factors are one: the wrapped model is the pretrained one.
        torch.testing.assert_close(reference, features(project.plain[0], project), rtol=0, atol=1e-6)
    fit(project, [gradual(), DiscriminativeLR(layer_decay=0.5), monitor])
    first, last = monitor.history[0], monitor.history[-1]
    assert (first.step, last.step) == (0, 16)
    assert {reading.value for reading in first.readings.values()} == {0.0}
    now = features(project.model, project)
    expected = 1 - nn.functional.cosine_similarity(reference.double(), now.double()).mean()
    assert last.readings["forgetting_cosine"].value == pytest.approx(expected.item(), abs=1e-6)
    assert expected > 1e-4


@pytest.mark.parametrize("case", ["bert-lora", "vit-ia3", "bert-prompt"])
def test_a_checkpoint_holds_head_and_adapters_and_the_run_goes_on_from_it(case: str, tmp_path: Path) -> None:
    def callbacks(project: Project) -> list[Any]:
        return [gradual(), DiscriminativeLR(layer_decay=0.5, rewarm_steps=6), source_probe(project)]

    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    # Without dropout, since Lightning's checkpoints hold no random states.
    whole = Project(case, dropout=0.0)
    fit(whole, [*callbacks(whole), saver])
    for epoch in range(3):
        again = Project(case, dropout=0.0)
        with torch.no_grad():
            for value in again.parameters():
                value.add_(0.1)
        run = fit(again, callbacks(again), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        assert run.global_step == 16
        for name, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("case", CASES)
def test_what_peft_saves_after_the_fit_loads_onto_the_pretrained_model(case: str, tmp_path: Path) -> None:
    project = Project(case)
    fit(project, [gradual(), DiscriminativeLR(layer_decay=0.5)])
    project.model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(deepcopy(project.plain[0]), tmp_path)
    batch = next(iter(DataLoader(project.data, batch_size=16)))
    with torch.no_grad():
        wanted, found = (model.eval()(**batch).logits for model in (project.model, loaded))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    plain = project.plain[0].eval()(**batch).logits
    assert (plain - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("case", ["bert-lora", "bert-ia3"])
def test_closed_adapters_stay_closed_when_others_switch_adapters_off_and_on(case: str) -> None:
    """PEFT opens every adapter when `disable_adapter` ends, as in distillation from the pretrained model."""

    class Distilling(Project):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            with self.model.disable_adapter(), torch.no_grad():
                teacher = self.model(**batch).logits
            output = self.model(**batch)
            return output.loss + (output.logits - teacher).square().mean()

    project, watch = Distilling(case), Watch()
    fit(project, [BackboneFreezeUnfreeze("partial", num_open_groups=1, verbose=False), watch], epochs=1)
    assert {layer_of(name) for name in project.moved()} - {None} == {2}
    assert len(watch.trains) == 4


def test_the_page_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how_to" / "use_peft.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    pretrained = bert(dropout=0.1)
    fetched = lambda name, num_labels: deepcopy(pretrained)  # noqa: E731
    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", fetched)
    namespace: dict[str, Any] = {
        "train_loader": DataLoader(Texts(), batch_size=4),
        "source_loader": DataLoader(Texts(), batch_size=8),
    }
    for block in blocks:
        exec(compile(block, "use_peft.md", "exec"), namespace)  # noqa: S102 - the page is ours; running it is the test
    assert namespace["trainer"].current_epoch == 4
    history = namespace["forgetting"].history
    assert (history[0].step, history[-1].step) == (0, 16)
    batch = next(iter(DataLoader(Texts(), batch_size=16)))
    with torch.no_grad():
        wanted, found = (namespace[name].eval()(**batch).logits for name in ("trained", "loaded"))
        plain = pretrained.eval()(**batch).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert (plain - wanted).abs().max() > 1e-6


def test_a_head_that_peft_froze_is_not_trained_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `modules_to_save` PEFT freezes the new head; a stage in which nothing trains is an error."""
    config = lambda: peft.LoraConfig(r=2, target_modules=f"{KEYS}|{MLP}")  # noqa: E731
    monkeypatch.setitem(CASES, "no-head", (vit, config))
    with pytest.raises(MisconfigurationException, match="Nothing is trainable"):
        fit(Project("no-head"), [gradual()])
    opened = Project("no-head")
    fit(opened, [BackboneFreezeUnfreeze({0: 1}, verbose=False)], epochs=1)
    assert {layer_of(name) for name in opened.moved()} == {2}
