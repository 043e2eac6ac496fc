from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_transfer.backbones import load_backbone, load_source_head
from lightning_transfer.data.formula_images import FORMULA_CLASSES, FormulaImages

# One image of each class: enough for every texture and every mark.
ALL = len(FORMULA_CLASSES)


def _draw_all(**arguments: object) -> np.ndarray:
    source = FormulaImages(ALL, **arguments)
    return np.stack([source.draw(index)[0] for index in range(ALL)])


def test_the_same_seed_draws_the_same_images() -> None:
    np.testing.assert_array_equal(_draw_all(seed=3), _draw_all(seed=3))


def test_an_image_depends_on_its_index_alone() -> None:
    first, second = FormulaImages(ALL, seed=3), FormulaImages(10 * ALL, seed=3)
    for index in (ALL - 1, 0, 17):
        np.testing.assert_array_equal(first.draw(index)[0], second.draw(index)[0])


# Mean and deviation of one image of each texture, seed 5. If the drawings change, the embedded weights must be
# made again by benchmarks/pretrain_embedded.py; then these numbers change with them.
DRAWN = {
    0: (0.427, 0.094),
    9: (0.417, 0.154),
    18: (0.462, 0.080),
    27: (0.553, 0.143),
    36: (0.663, 0.115),
    45: (0.398, 0.113),
    54: (0.348, 0.124),
    63: (0.301, 0.076),
    64: (0.526, 0.087),
    75: (0.710, 0.122),
    86: (0.505, 0.084),
    89: (0.419, 0.146),
    100: (0.775, 0.086),
    111: (0.618, 0.161),
    114: (0.553, 0.073),
    125: (0.442, 0.053),
}


@pytest.mark.parametrize("index", DRAWN)
def test_the_drawings_are_those_of_the_embedded_weights(index: int) -> None:
    image, _ = FormulaImages(ALL, seed=5).draw(index)
    assert (float(image.mean()), float(image.std())) == pytest.approx(DRAWN[index], abs=2e-3)


def test_the_embedded_weights_know_the_classes_of_a_held_out_seed() -> None:
    name = "embedded/formula_resnet_tiny"
    (backbone, card), source_head = load_backbone(name), load_source_head(name)
    source = FormulaImages(4 * ALL, seed=77, mean=card.mean, std=card.std)
    images, labels = (torch.stack(list(map(torch.as_tensor, column))) for column in zip(*source, strict=True))
    with torch.no_grad():
        preds = source_head(backbone.eval()(images)).argmax(1)
    # 0.85 on 2,048 images when they were made; chance is 0.008.
    assert (preds == labels).float().mean() > 0.75


def test_a_held_out_seed_shares_the_classes_and_no_image() -> None:
    trained, held_out = FormulaImages(ALL, seed=0), FormulaImages(ALL, seed=1)
    for index in range(ALL):
        (first, label), (second, other) = trained.draw(index), held_out.draw(index)
        assert label == other
        assert np.abs(first - second).mean() > 0.005


def test_no_two_images_of_a_class_are_the_same() -> None:
    source = FormulaImages(4 * ALL, seed=0)
    for label in range(0, ALL, 5):
        drawn = [source.draw(label + turn * ALL)[0] for turn in range(4)]
        assert len({image.tobytes() for image in drawn}) == 4


def test_classes_are_balanced_and_named() -> None:
    source = FormulaImages(3 * ALL)
    counts = Counter(source[index][1] for index in range(0, 3 * ALL))
    assert counts == dict.fromkeys(range(ALL), 3)
    assert len(set(source.classes)) == ALL == 128


def test_every_image_is_finite_in_range_and_shows_something() -> None:
    for seed in range(3):
        images = _draw_all(seed=seed)
        assert images.dtype == np.float32
        assert np.isfinite(images).all()
        assert images.min() >= 0
        assert images.max() <= 1
        assert images.std(axis=(2, 3)).max(axis=1).min() > 0.01


def test_brightness_tells_no_class() -> None:
    source = FormulaImages(20 * ALL, size=16)
    drawn = [source.draw(index) for index in range(len(source))]
    means = np.array([image.mean() for image, _ in drawn]).reshape(20, ALL)
    between = means.mean(axis=0).std()
    # The spread of class means is what 20 draws of one distribution give: total deviation / sqrt(20).
    assert between < 1.5 * means.std() / np.sqrt(20)


def test_half_of_the_images_are_grey() -> None:
    images = _draw_all(seed=2)
    grey = np.ptp(images, axis=1).max(axis=(1, 2)) < 1e-6
    assert 0.3 < grey.mean() < 0.7


def test_the_mark_is_what_was_added() -> None:
    source = FormulaImages(ALL, seed=4)
    for index in range(0, ALL, 7):
        image, label, mark = source.draw_with_mark(index)
        drawn, same = source.draw(index)
        np.testing.assert_array_equal(image, drawn)
        assert label == same == index
        assert bool(mark.any()) == (not source.classes[label].endswith("plain"))


def test_normalisation_is_the_cards() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    tensor, _ = FormulaImages(8, seed=1, mean=mean, std=std)[5]
    raw, _ = FormulaImages(8, seed=1).draw(5)
    expected = np.stack([(raw[channel] - mean[channel]) / std[channel] for channel in range(3)])
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", [16, 33, 96])
def test_other_sizes(size: int) -> None:
    image, _ = FormulaImages(1, size=size)[0]
    assert image.shape == (3, size, size)


def test_a_loader_ends_and_batches() -> None:
    batches = list(DataLoader(FormulaImages(10, size=16), batch_size=4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert sum(1 for _ in FormulaImages(3, size=16)) == 3


def test_negative_index_and_the_end() -> None:
    source = FormulaImages(10, size=16)
    np.testing.assert_array_equal(source.draw(-1)[0], source.draw(9)[0])
    for index in (10, -11):
        with pytest.raises(IndexError, match=f"No image {index}: the data set holds 10"):
            source[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, "`num_images` of at least 1, got 0"),
        ({"num_images": 1, "size": 8}, "`size` of at least 16 pixels, got 8"),
        ({"num_images": 1, "seed": -2}, "`seed` of at least 0, got -2"),
        ({"num_images": 1, "mean": (0.5,)}, r"three values in `mean`, .* got \[0.5\]"),
        ({"num_images": 1, "std": (0.2, 0.2, 0.0)}, r"positive values in `std`, got \[0.2, 0.2, 0.0\]"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FormulaImages(**arguments)


def test_drawing_is_fast_enough_to_be_a_probe() -> None:
    source = FormulaImages(4 * ALL)
    _draw_all()
    started = time.process_time()
    for index in range(len(source)):
        source.draw(index)
    # About 900 images a second on one core; the bound leaves room for a busy machine.
    assert len(source) / (time.process_time() - started) > 150
