"""A recogniser of a few words, in a second: each frame is a word; an accent is another set of sounds for the words."""

from __future__ import annotations

from functools import lru_cache

import lightning.pytorch
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_transfer.callbacks import ForgettingMonitor
from lightning_transfer.speech import Transcript
from tests.unit.callbacks.forgetting_toys import make_trainer

WORDS = ("yes", "no", "call", "me", "back", "please", "router", "bill")
LENGTH, WIDTH = 5, 12


def sounds(accent):
    """What each word sounds like: the second accent is half of the first, and half of its own."""
    first = torch.randn(len(WORDS), WIDTH, generator=torch.Generator().manual_seed(0))
    other = torch.randn(len(WORDS), WIDTH, generator=torch.Generator().manual_seed(1)).flip(0)
    return first if accent == "general" else 0.3 * first + 0.9 * other


class Sentences(Dataset):
    """Items of input and text; `accent` says how the words sound."""

    def __init__(self, accent="general", n=24, seed=1, noise=0.7):
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.randint(len(WORDS), (n, LENGTH), generator=generator)
        self.x = sounds(accent)[self.words] + noise * torch.randn(n, LENGTH, WIDTH, generator=generator)

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        return {"input_values": self.x[index], "labels": self.words[index], "text": text_of(self.words[index])}


def text_of(numbers):
    return " ".join(WORDS[int(number)] for number in numbers)


class Hearing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, 24)
        self.norm = nn.BatchNorm1d(24)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(24, 16)

    def forward(self, input_values):
        hidden = self.norm(self.first(input_values).transpose(1, 2)).transpose(1, 2)
        return self.last(self.drop(hidden.relu())).relu()


def _module_class(lib):
    class Recogniser(lib.LightningModule):
        def __init__(self, lr=0.02):
            super().__init__()
            self.lr = lr
            self.backbone = Hearing()
            self.head = nn.Linear(16, len(WORDS))
            self.heard = 0

        def forward(self, input_values):
            return self.head(self.backbone(input_values))

        def loss(self, batch):
            return nn.functional.cross_entropy(self(batch["input_values"]).flatten(0, 1), batch["labels"].flatten())

        def training_step(self, batch, batch_idx):
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            wrong = (self(batch["input_values"]).argmax(-1) != batch["labels"]).double().mean()
            self.log("val_wer", wrong, batch_size=len(batch["labels"]))

        def transcribe(self, batch):
            numbers = self(batch["input_values"]).argmax(-1)
            return [Transcript(place, text_of(row), None, 1.0) for place, row in enumerate(numbers)]

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=self.lr)

    Recogniser.__qualname__ = Recogniser.__name__ = f"Recogniser_{lib.__name__.replace('.', '_')}"
    return Recogniser


# So that it can be pickled by name.
Recogniser_lightning_pytorch = _module_class(lightning.pytorch)


@lru_cache(maxsize=1)
def _pretrained():
    """Weights that know the general accent."""
    torch.manual_seed(0)
    module, data = Recogniser_lightning_pytorch(), Sentences(n=200, seed=7)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(data.x).flatten(0, 1), data.words.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.state_dict()


def recogniser(lib=lightning.pytorch, **options):
    module = (Recogniser_lightning_pytorch if lib is lightning.pytorch else _module_class(lib))(**options)
    module.load_state_dict(_pretrained())
    return module


GENERAL = Sentences(n=20, seed=3)
TRAIN, VAL = Sentences("call", 24, 4), Sentences("call", 20, 5)


def train(tmp_path, *callbacks, module=None, lib=lightning.pytorch, epochs=3, ckpt_path=None, **options):
    module = recogniser(lib) if module is None else module
    trainer = make_trainer(tmp_path, callbacks, lib, max_epochs=epochs, **options)
    torch.manual_seed(3)
    trainer.fit(module, DataLoader(TRAIN, batch_size=8), DataLoader(VAL, batch_size=10), ckpt_path=ckpt_path)
    return trainer, module


def monitor(probe=GENERAL, **options):
    return ForgettingMonitor(probe, **{"metrics": ("wer",), "max_overhead": None, **options})


def heard(module, data):
    """What a module hears in a data set, by hand."""
    modes = [(item, item.training) for item in module.modules()]
    module.eval()
    with torch.no_grad():
        numbers = module(data.x).argmax(-1)
    for item, training in modes:
        item.training = training
    return [text_of(row) for row in numbers]


def said(data):
    return [text_of(row) for row in data.words]
