"""Findings with known scores: several records a patient, unknown labels, a finding that nobody has."""

import numpy as np
import torch

from lightning_transfer.evaluation import Outputs
from lightning_transfer.types import Record, Schema

FINDINGS = ("Edema", "Pleural Effusion", "Hernia")
SCHEMA = Schema(task="multilabel", classes=FINDINGS, preprocessing={"kind": "image"})


def findings(n: int = 240, seed: int = 0, per_patient: int = 2) -> tuple[Outputs, list[Record]]:
    """Return outputs and records; patients' records resemble each other, and sites differ in how well they go."""
    rng = np.random.default_rng(seed)
    target = (rng.random((n, 3)) < [0.4, 0.2, 0.0]).astype(np.float32)
    site = np.where(np.arange(n) // per_patient % 3 == 0, "b", "a")
    noise = rng.normal(size=(n, 3)) + np.repeat(rng.normal(size=(-(-n // per_patient), 3)), per_patient, axis=0)[:n] / 2
    logits = 2.5 * (target - 0.5) * np.where(site == "a", 1.0, 0.3)[:, None] + noise
    target[rng.random((n, 3)) < 0.1] = np.nan
    target[rng.random((n, 3)) < 0.05] = 0.6
    age = rng.integers(1, 95, size=n)
    records = [
        Record(
            id=f"r{place}", input=f"r{place}.png", split="test", group=f"p{place // per_patient}",
            label=tuple(None if np.isnan(value) else float(value) for value in target[place]),
            meta={"site": str(site[place]), "sex": "FM"[place // per_patient % 2], "age": int(age[place])},
        )
        for place in range(n)
    ]  # fmt: skip
    outputs = Outputs(torch.tensor(logits).float(), torch.zeros(n, 1), torch.tensor(target), torch.arange(n))
    return outputs, records
