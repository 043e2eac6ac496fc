"""Oracles: torchvision's affine transform, slices of the picture, means of probabilities."""

import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, affine

from lightning_transfer.modules.views import VIEWS, check_views, mean_logits, views_of

IMAGES = torch.randn(2, 3, 50, 100, generator=torch.Generator().manual_seed(0))


def test_the_picture_itself_comes_first() -> None:
    [only] = views_of(IMAGES, [])
    assert only is IMAGES


def test_shifts_are_by_four_percent_of_the_side_and_repeat_the_edge() -> None:
    _, left, right, up, down = views_of(IMAGES, ["shift"])
    torch.testing.assert_close(left[..., :-4], IMAGES[..., 4:], atol=1e-4, rtol=0)
    torch.testing.assert_close(left[..., -4:], IMAGES[..., -1:].expand(-1, -1, -1, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(right[..., 4:], IMAGES[..., :-4], atol=1e-4, rtol=0)
    torch.testing.assert_close(up[..., :-2, :], IMAGES[..., 2:, :], atol=1e-4, rtol=0)
    torch.testing.assert_close(down[..., 2:, :], IMAGES[..., :-2, :], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "place", "angle", "scale"), [
    ("rotate", 1, -5.0, 1.0), ("rotate", 2, 5.0, 1.0), ("scale", 1, 0.0, 1 / 0.94), ("scale", 2, 0.0, 1 / 1.06),
])  # fmt: skip
def test_turns_and_scales_are_torchvisions_inside(name: str, place: int, angle: float, scale: float) -> None:
    found = list(views_of(IMAGES, [name]))[place]
    options = {"translate": [0, 0], "shear": [0.0], "interpolation": InterpolationMode.BILINEAR}
    expected = affine(IMAGES, angle=angle, scale=scale, **options)
    # The corners are filled otherwise.
    torch.testing.assert_close(found[..., 12:-12, 12:-12], expected[..., 12:-12, 12:-12], atol=2e-3, rtol=0)


def test_a_mirrored_picture_is_exact_and_half_precision_stays() -> None:
    assert torch.equal(list(views_of(IMAGES, ["horizontal_flip"]))[1], IMAGES.flip(-1))
    assert all(view.dtype == torch.float16 for view in views_of(IMAGES.half(), list(VIEWS)))


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Unknown test-time view `rotat`\. .*rotate"):
        check_views(["rotat"])
    with pytest.raises(ValueError, match="each test-time view once"):
        check_views(["shift", "shift"])


def test_probabilities_are_averaged() -> None:
    logits = 3 * torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_logits(logits, "multilabel").sigmoid(), logits.sigmoid().mean(0))
    torch.testing.assert_close(mean_logits(logits, "multiclass").softmax(-1), logits.softmax(-1).mean(0))
    torch.testing.assert_close(mean_logits(logits[:1], "binary"), logits[0], atol=1e-5, rtol=1e-5)


def test_sure_logits_stay_finite() -> None:
    found = mean_logits(torch.tensor([[[200.0, -200.0]], [[200.0, -300.0]]]), "multilabel")
    assert found.isfinite().all()
    assert found[0, 0] > 190
