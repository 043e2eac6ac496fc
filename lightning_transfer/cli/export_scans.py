"""The verb ``export`` for models of medical images."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from lightning_transfer import export as forms
from lightning_transfer.cli.export_images import ImageForm
from lightning_transfer.cli.export_samples import Samples, spread
from lightning_transfer.errors import DataError
from lightning_transfer.export import predict_onnx_scan
from lightning_transfer.types import Record

__all__ = ["ScanForm"]


class ScanForm(ImageForm):
    """Medical images: read by copies of this package's readers, prepared by ``predict_onnx_scan.py``."""

    script: ModuleType = predict_onnx_scan

    def samples(self, place: str, count: int) -> Samples:
        """Return medical images below a folder, by their names."""
        paths = list(predict_onnx_scan.find_scans([place]))
        if not paths:
            raise DataError(f"`{place}` holds no DICOM files and no pictures to compare on.")
        chosen = spread([Record(str(path), path) for path in paths], count)
        return Samples(chosen, f"{len(chosen)} of {len(paths)} images below `{place}`")

    def write_script(self, folder: Path) -> None:
        """Write the script, and the readers in a folder beside it."""
        forms.write_script(Path(predict_onnx_scan.__file__), folder, forms.SCAN_PARTS)
