from lightning_transfer.scans import ImagePart


def test_a_part_is_named_by_its_file_and_place() -> None:
    assert str(ImagePart("a/head.nii.gz", 0)) == "a/head.nii.gz#0"
    assert str(ImagePart("set.npz", 3, key="train_images")) == "set.npz#3"
    assert ImagePart("chest.dcm") == ImagePart("chest.dcm", None, "")
