"""Tests of the clock: with a clock of its own, it adds up the steps alone."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_transfer.cli import decoding_clock
from lightning_transfer.cli.decoding_clock import DecodingClock


def test_seconds_of_the_steps_alone_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(decoding_clock.time, "perf_counter", lambda: now[0])
    clock, module = DecodingClock(), SimpleNamespace(device=torch.device("cpu"))
    trainer: Any = None
    for _ in range(2):
        clock.on_test_start(trainer, module)
        for reading, decoding in ((5.0, 1.0), (7.0, 0.5)):
            now[0] += reading
            clock.on_test_batch_start(trainer, module, None, 0)
            now[0] += decoding
            clock.on_test_batch_end(trainer, module, None, None, 0)
        assert clock.seconds == 1.5


def test_a_device_that_works_by_itself_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock, module = DecodingClock(), SimpleNamespace(device=torch.device("cuda", 0))
    trainer: Any = None
    clock.on_test_batch_start(trainer, module, None, 0)
    clock.on_test_batch_end(trainer, module, None, None, 0)
    assert waited == [torch.device("cuda", 0)] * 2
