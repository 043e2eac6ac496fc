"""Listen to a piece of sound once, block by block, and keep what the checks of the data ask of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from lightning_transfer.data.audio_files import AudioFile, Waveform, audio_file, blocks
from lightning_transfer.speech import AudioSegment

__all__ = ["AudioFacts", "inspect_audio"]

_FULL_SCALE = 0.98
"""What mu-law calls full scale is 32,124 of 32,768."""

_FLAT = 1e-4
_MAX_CLIPPED = 1e-3
_SILENT = 1e-3


@dataclass(frozen=True)
class AudioFacts:
    """What is known of a piece of sound after it was decoded once.

    Attributes:
        file: What the header says.
        seconds: Length of the piece.
        peak: Highest absolute value; full scale is 1.
        level: Root mean square, of full scale.
        clipped: Share of samples that stand at full scale in runs of three or more, as a cut-off wave does.
        digest: Hash of the decoded samples: equal for copies, in whatever files.
    """

    file: AudioFile
    seconds: float
    peak: float
    level: float
    clipped: float
    digest: str

    @property
    def is_silent(self) -> bool:
        """Whether nothing is louder than 60 dB below full scale."""
        return self.peak < _SILENT

    @property
    def is_clipped(self) -> bool:
        """Whether more than one in a thousand samples is cut off."""
        return self.clipped > _MAX_CLIPPED


def inspect_audio(segment: AudioSegment) -> AudioFacts:
    """Decode a piece of a file, whatever its length in little memory, and return what is known of it.

    Raises:
        DataError: If it cannot be used; names the file and the reason.
    """
    file = audio_file(segment.path)
    digest = hashlib.blake2b(digest_size=16)
    peak, squares, clipped, count = 0.0, 0.0, 0, 0
    before = np.zeros(0, dtype=np.float32)
    for wave in blocks(segment):
        digest.update(wave.tobytes())
        peak = max(peak, float(np.abs(wave).max()))
        squares += float(np.dot(wave.astype(np.float64), wave))
        count += len(wave)
        # Two samples of the block before, so that a run across the border is seen.
        joined = np.concatenate([before, wave])
        clipped += _clipped(joined)
        before = joined[-2:]
    level = float(np.sqrt(squares / count))
    return AudioFacts(file, count / file.rate, peak, level, clipped / count, digest.hexdigest())


def _clipped(wave: Waveform) -> int:
    """Count the samples that end a run of three or more at full scale."""
    if len(wave) < 3:
        return 0
    high = np.abs(wave) >= _FULL_SCALE
    flat = np.abs(np.diff(wave)) <= _FLAT
    return int((high[2:] & high[1:-1] & high[:-2] & flat[1:] & flat[:-1]).sum())
