"""Masks: where they may lie, how wide they are, and that they repeat with torch's seed."""

import pytest
import torch

from lightning_transfer.modules.spec_augment import SpecAugment


def runs(row: torch.Tensor) -> list[int]:
    """Lengths of the stretches of True."""
    found, count = [], 0
    for value in [*row.tolist(), False]:
        if value:
            count += 1
        elif count:
            found.append(count)
            count = 0
    return found


def test_masks_stay_within_the_recording_and_their_width() -> None:
    torch.manual_seed(0)
    masks = SpecAugment(time_masks=1, time_width=7, time_share=0.5, feature_masks=1, feature_width=0.25)
    lengths = torch.tensor([40, 9, 3, 0] * 200)
    time, bands = masks.draw(lengths, 40, 16)
    for row, length in zip(time, lengths.tolist(), strict=True):
        assert not row[length:].any()
        assert all(width <= min(7, length // 2) for width in runs(row))
        assert len(runs(row)) <= 1
    assert max(max(runs(row), default=0) for row in bands) == 4
    widths = [sum(runs(row)) for row, length in zip(time, lengths.tolist(), strict=True) if length == 40]
    assert set(widths) == set(range(8)), "every width from none to the widest"
    # Uniform: the mean width of 200 draws from 0 to 7 is 3.5 with a standard error of 0.16.
    assert sum(widths) / len(widths) == pytest.approx(3.5, abs=0.6)


def test_every_place_is_as_likely() -> None:
    torch.manual_seed(0)
    masks = SpecAugment(time_masks=1, time_width=1, time_share=1.0, feature_masks=0)
    time, _ = masks.draw(torch.full((4000,), 10), 12, 1)
    counts = time.sum(dim=0)
    assert counts[10:].tolist() == [0, 0]
    assert counts[:10].min() > 120
    assert counts[:10].max() < 290


def test_hidden_frames_get_the_mark_and_hidden_features_are_zero() -> None:
    torch.manual_seed(3)
    features, mark = torch.ones(2, 50, 8), torch.full((8,), 5.0)
    masks = SpecAugment(time_masks=2, time_width=20, time_share=1.0, feature_masks=1, feature_width=0.5)
    torch.manual_seed(3)
    time, bands = masks.draw(torch.tensor([50, 50]), 50, 8)
    torch.manual_seed(3)
    changed = masks(features, torch.tensor([50, 50]), mark)
    assert time.any()
    assert bands.any()
    expected = torch.where(time[:, :, None], 5.0, 1.0).expand(-1, -1, 8).masked_fill(bands[:, None, :], 0.0)
    assert torch.equal(changed, expected)
    assert torch.equal(features, torch.ones(2, 50, 8))


def test_how_many_numbers_are_drawn_depends_on_the_batchs_size_alone() -> None:
    states = []
    for lengths in ([50, 50], [3, 0]):
        torch.manual_seed(1)
        SpecAugment().draw(torch.tensor(lengths), 50, 8)
        states.append(torch.rand(1).item())
    assert states[0] == states[1]


def test_gradients_flow_where_nothing_is_hidden() -> None:
    torch.manual_seed(0)
    features = torch.ones(1, 30, 4, requires_grad=True)
    masks = SpecAugment(time_masks=1, time_width=10, time_share=1.0, feature_masks=0)
    changed = masks(features, torch.tensor([30]), torch.zeros(4))
    changed.sum().backward()
    assert torch.equal(features.grad, (changed != 0).float())


def test_plain_values_rebuild_it() -> None:
    masks = SpecAugment(time_masks=3, feature_width=0.2)
    assert SpecAugment.of(masks.to_dict()) == masks
    assert SpecAugment.of(None) is None
    assert SpecAugment.of(masks) is masks


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time_masks": -1}, "`spec_augment.time_masks` of at least 0, got -1"),
        ({"time_share": 1.5}, r"`spec_augment.time_share` in \[0, 1\], got 1.5"),
        ({"feature_width": -0.1}, "got -0.1"),
    ],
)
def test_wrong_numbers_are_named(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpecAugment(**values)  # type: ignore[arg-type]
