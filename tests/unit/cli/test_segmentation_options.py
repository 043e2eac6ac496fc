"""What the section says where nothing is given."""

from lightning_transfer.cli.segmentation_options import SegmentationOptions


def test_what_is_cheap_is_the_default() -> None:
    found = SegmentationOptions()
    assert found.baselines == ["majority", "plain"]
    assert found.save_masks
    assert found.slices == "all"
    assert found.scratch.patience == 10
