"""Stored tensors against those that were given: in memory and in files; and files that are not whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_transfer.data.activation_files import ActivationFiles, ActivationWriter, TooLargeError, part_name

BIG = 1 << 30


def write(part: Path | None, memory: float = 0, key: str = "k", dtype: Any = None, items: int = 7) -> Any:
    """Write items in batches of three, one of fixed shape, one that differs in length, and one number."""
    writer = ActivationWriter(part, memory_limit=memory, size_limit=BIG, key=key, dtype=dtype)
    for start in range(0, items, 3):
        chosen = list(range(start, min(start + 3, items)))
        writer.add(chosen, [torch.stack([tensor[0] for tensor in map(item, chosen)]), padded(chosen), numbers(chosen)])
    return writer.finish({"note": 1})


def item(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(2, 3, generator=generator), torch.randn(4, number % 4 + 1, generator=generator)


def padded(items: list[int]) -> Tensor:
    width = max(item(number)[1].shape[1] for number in items)
    return torch.stack(
        [torch.nn.functional.pad(item(number)[1], (0, width - item(number)[1].shape[1])) for number in items]
    )


def numbers(items: list[int]) -> Tensor:
    return torch.tensor(items) * 10


@pytest.mark.parametrize(("on_disk", "memory"), [(False, BIG), (True, 0), (True, 150), (True, BIG)])
def test_what_is_read_is_what_was_written(tmp_path: Path, on_disk: bool, memory: float) -> None:
    part = tmp_path / "key" / part_name(0, 1) if on_disk else None
    files = ActivationFiles([write(part, memory)])
    assert files.in_memory == (memory == BIG)
    assert len(files) == 7
    assert files.meta == {"note": 1}
    wanted = [6, 0, 3, 3]
    fixed, ragged, count = files.take(wanted)
    assert torch.equal(fixed, torch.stack([item(number)[0] for number in wanted]))
    expected = padded(wanted)
    assert torch.equal(ragged[..., : expected.shape[2]], expected)
    assert not bool(ragged[..., expected.shape[2] :].any())
    assert torch.equal(count, numbers(wanted))
    with pytest.raises(KeyError, match="lacks some of the items"):
        files.take([7])


def test_parts_of_several_processes_are_one(tmp_path: Path) -> None:
    for rank in range(2):
        writer = ActivationWriter(tmp_path / part_name(rank, 2), memory_limit=0, size_limit=BIG, key="k")
        for number in range(rank, 7, 2):
            writer.add([number], [item(number)[0][None], item(number)[1][None]])
        writer.finish({})
    files = ActivationFiles.open(tmp_path, "k")
    assert files is not None
    fixed, ragged = files.take([0, 1, 5, 4])
    assert torch.equal(fixed, torch.stack([item(number)[0] for number in (0, 1, 5, 4)]))
    assert torch.equal(ragged, padded([0, 1, 5, 4]))
    # Half of the processes is not all of it.
    (tmp_path / part_name(1, 2) / "header.json").unlink()
    assert ActivationFiles.open(tmp_path, "k") is None


def test_files_hold_bits_and_json_alone(tmp_path: Path) -> None:
    write(tmp_path / part_name(0, 1))
    names = {path.name for path in (tmp_path / part_name(0, 1)).iterdir()}
    assert names == {
        "header.json",
        "items.bin",
        *(f"{n}.bin" for n in range(3)),
        *(f"{n}.places.bin" for n in range(3)),
    }
    header = json.loads((tmp_path / part_name(0, 1) / "header.json").read_text())
    assert header["key"] == "k"
    raw = torch.frombuffer(bytearray((tmp_path / part_name(0, 1) / "0.bin").read_bytes()), dtype=torch.float32)
    assert torch.equal(raw.view(7, 2, 3)[2], item(2)[0])


def test_what_is_half_written_is_never_used(tmp_path: Path) -> None:
    writer = ActivationWriter(tmp_path / part_name(0, 1), memory_limit=0, size_limit=BIG, key="k")
    writer.add([0], [torch.zeros(1, 2)])
    # The process dies here: what it left has a hidden name.
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    assert ActivationFiles.open(tmp_path, "k") is None
    writer.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncate", "longer", "missing", "header", "format", "no key"])
def test_damaged_files_are_never_used(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / part_name(0, 1)
    write(folder)
    assert ActivationFiles.open(tmp_path, "k") is not None
    data, header = folder / "1.bin", folder / "header.json"
    if damage == "truncate":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "longer":
        data.write_bytes(data.read_bytes() + b"0000")
    elif damage == "missing":
        data.unlink()
    elif damage == "header":
        header.write_text(header.read_text()[:40])
    elif damage == "format":
        header.write_text(json.dumps({**json.loads(header.read_text()), "format": 99}))
    else:
        header.write_text(json.dumps({"fields": []}))
    assert ActivationFiles.open(tmp_path, "k") is None
    # And it is written anew in its place.
    write(folder)
    assert ActivationFiles.open(tmp_path, "k") is not None


def test_another_key_is_another_cache(tmp_path: Path) -> None:
    write(tmp_path / part_name(0, 1))
    assert ActivationFiles.open(tmp_path, "other") is None
    (tmp_path / "part-x-of-y").mkdir()
    assert ActivationFiles.open(tmp_path, "k") is not None


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2**-10), ("bfloat16", 2**-7)])
@pytest.mark.parametrize("on_disk", [False, True])
def test_half_the_bits_round_and_come_back_as_they_were(
    tmp_path: Path, dtype: Any, bound: float, on_disk: bool
) -> None:
    part = tmp_path / part_name(0, 1) if on_disk else None
    exact = ActivationFiles([write(None, BIG)])
    files = ActivationFiles([write(part, 0 if on_disk else BIG, dtype=dtype)])
    fixed, _, count = files.take([0, 5])
    assert fixed.dtype == torch.float32
    assert count.dtype == torch.int64
    expected = torch.stack([item(0)[0], item(5)[0]])
    assert not torch.equal(fixed, expected)
    assert bool(((fixed - expected).abs() <= bound * expected.abs() + 1e-7).all())
    assert files.nbytes < 0.75 * exact.nbytes


def test_a_number_that_does_not_fit_is_named() -> None:
    writer = ActivationWriter(None, memory_limit=BIG, size_limit=BIG, dtype="float16")
    with pytest.raises(ValueError, match=r"1e\+05 does not fit into float16.*bfloat16"):
        writer.add([0], [torch.tensor([[1e5]])])


def test_limits_are_kept(tmp_path: Path) -> None:
    writer = ActivationWriter(tmp_path / "p", memory_limit=0, size_limit=100)
    with pytest.raises(TooLargeError, match=r"0\.0 MB of 2 items"):
        writer.add([0, 1], [torch.zeros(2, 20)])
    with pytest.raises(TooLargeError, match="in memory"):
        ActivationWriter(None, memory_limit=100, size_limit=BIG).add([0, 1], [torch.zeros(2, 20)])
