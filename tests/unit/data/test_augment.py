import pytest
import torch

from lightning_transfer.data.augment import AUGMENTATIONS, Augmentations


def _many(names, image, count=64):
    generator = torch.Generator().manual_seed(0)
    return [Augmentations(names)(image, generator) for _ in range(count)]


IMAGE = torch.arange(12.0).reshape(1, 3, 4)
SQUARE = torch.arange(9.0).reshape(1, 3, 3)


def _distinct(images):
    return {tuple(image.flatten().tolist()) for image in images}


def test_none_changes_nothing() -> None:
    assert all(torch.equal(image, IMAGE) for image in _many([], IMAGE, 3))


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_flips_happen_about_half_of_the_time(name: str, axis: int) -> None:
    images = _many([name], IMAGE, 200)
    flipped = [torch.equal(image, IMAGE.flip(axis)) for image in images]
    assert all(f or torch.equal(i, IMAGE) for f, i in zip(flipped, images, strict=True))
    assert 60 < sum(flipped) < 140


def test_rotation_gives_the_four_turns_of_a_square() -> None:
    expected = _distinct(torch.rot90(SQUARE, k, (1, 2)) for k in range(4))
    assert _distinct(_many(["rotate_90"], SQUARE)) == expected


def test_rotation_keeps_the_shape_of_a_rectangle() -> None:
    assert _distinct(_many(["rotate_90"], IMAGE)) == _distinct([IMAGE, torch.rot90(IMAGE, 2, (1, 2))])


def test_brightness_adds_one_number_within_bounds() -> None:
    shifts = torch.stack([(image - IMAGE).flatten() for image in _many(["brightness"], IMAGE)])
    assert shifts.std(dim=1).max() < 1e-6
    assert shifts.abs().max() <= 0.2 + 1e-6
    assert shifts[:, 0].min() < -0.1
    assert shifts[:, 0].max() > 0.1


def test_the_generator_alone_decides() -> None:
    first, second = _many(AUGMENTATIONS, SQUARE), _many(AUGMENTATIONS, SQUARE)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"`horizontal_flipp`. Did you mean `horizontal_flip`\? Known: .*brightness"):
        Augmentations(["horizontal_flipp"])


def test_a_mask_moves_with_its_picture() -> None:
    image, names = torch.rand(2, 6, 6), ["horizontal_flip", "brightness", "rotate_90", "vertical_flip"]
    mask, changes = (image[0] * 100).long(), Augmentations(names)
    for seed in range(20):
        first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
        moved, drawn = changes.pair(image, mask, first)
        assert torch.equal(moved, changes(image, second))
        shift = moved.min() - image.min()  # of the brightness
        assert torch.allclose((moved[0] - shift) * 100, drawn + 0.5, atol=0.51)
