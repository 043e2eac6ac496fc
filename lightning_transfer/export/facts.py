"""What an exported model says of itself: all that is needed to prepare its input and to read its logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning_transfer.export.packages import ExportError
from lightning_transfer.export.predict_onnx import PREFIX
from lightning_transfer.export.speech_features import input_name
from lightning_transfer.types import BackboneCard, Calibration, Schema

__all__ = ["exported_facts", "speech_facts", "to_properties"]


WHISPER = (
    "This is a Whisper model, and Whisper is not exported. It writes a text token by token: a loop around two networks "
    "with a growing cache, a search, and rules for repeats, of which one graph holds nothing. Save it with "
    "`lightning_transfer.load(RUN).module.backbone.model.save_pretrained(FOLDER)`, and convert the folder with the "
    "package `optimum` (`optimum-cli export onnx --model FOLDER --task automatic-speech-recognition-with-past OUTPUT`) "
    "or with `ct2-transformers-converter` for faster-whisper. Or adapt a CTC model, such as wav2vec 2.0, HuBERT or "
    "WavLM, which this verb exports."
)
"""Why, and what to do instead."""


def exported_facts(
    card: BackboneCard, schema: Schema, calibration: Calibration, routing: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return classes, decision, preprocessing and origin of a model, as plain values.

    Args:
        card: Of the backbone; name, licence and pretraining are taken.
        schema: Task, classes and preprocessing.
        calibration: Temperature, threshold, those for other false-reject rates, and those of labels.
        routing: The routing policy of texts, as a checkpoint holds it; None has none.

    Raises:
        ExportError: If the preprocessing is not of images or texts, or of texts that are read in chunks.

    Example:
        >>> schema = Schema("binary", ("good", "bad"), preprocessing={"kind": "image"})
        >>> facts = exported_facts(BackboneCard("timm/resnet18", "timm/resnet18"), schema, Calibration(threshold=0.3))
        >>> facts["negative_class"], facts["threshold"], facts["temperature"]
        ('good', 0.3, 1.0)
    """
    from lightning_transfer import __version__

    kind = schema.preprocessing.get("kind")
    if kind not in ("image", "scan", "text"):
        raise ExportError(
            "This version exports classifiers of images and of texts, and models that write down speech; this one is a "
            f"classifier whose preprocessing is of kind `{kind}`."
        )
    if schema.preprocessing.get("long_texts") == "chunks":
        raise ExportError(
            "This model averages the chunks of long texts (`long_texts: chunks`), which no exported graph does. Train "
            "with `--data.long_texts head_tail`, which reads the beginning and the end of a text, and export that."
        )
    plain, fitted = schema.to_dict(), calibration.to_dict()
    # Of two classes the first is the negative one, whether or not the data said so.
    negative = schema.classes[0] if schema.task == "binary" and schema.negative_class is None else schema.negative_class
    return {
        "version": __version__,
        "task": schema.task,
        "classes": plain["classes"],
        "negative_class": None if schema.task == "multilabel" else negative,
        "temperature": fitted["temperature"],
        "threshold": fitted["threshold"],
        "threshold_rule": fitted["rule"],
        "threshold_points": fitted["points"],
        "label_thresholds": fitted["label_thresholds"],
        "preprocessing": plain["preprocessing"],
        **({} if kind != "text" else {"routing": None if routing is None else dict(routing)}),
        "backbone": {"name": card.name, "licence": card.licence, "pretraining": card.pretraining},
    }


def speech_facts(card: BackboneCard, schema: Schema, network: Mapping[str, Any]) -> dict[str, Any]:
    """Return vocabulary, preprocessing and origin of a model that writes down speech, as plain values.

    Args:
        card: Of the backbone; name, licence and pretraining are taken.
        schema: The vocabulary, as its classes, and the preprocessing.
        network: ``sees_mask``, ``step_seconds`` and ``frame_seconds``, see `speech_network_facts`.

    Raises:
        ExportError: If it is a Whisper model, or its features are none that the script can compute.
    """
    from lightning_transfer import __version__

    spec = schema.to_dict()["preprocessing"]
    extractor = spec["feature_extractor"]
    if extractor.get("feature_extractor_type") == "WhisperFeatureExtractor":
        raise ExportError(WHISPER)
    try:
        input_name(extractor)
    except ValueError as error:
        raise ExportError(f"The script beside an exported model cannot compute {error}.") from error
    return {
        "version": __version__,
        "task": schema.task,
        "classes": list(schema.classes),
        "preprocessing": spec,
        **network,
        "backbone": {"name": card.name, "licence": card.licence, "pretraining": card.pretraining},
    }


def to_properties(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts as ONNX keeps them: a JSON text for each name, which begins with ``lightning_transfer.``.

    Example:
        >>> to_properties({"classes": ["good", "bad"]})
        {'lightning_transfer.classes': '["good", "bad"]'}
    """
    return {f"{PREFIX}{name}": json.dumps(value, ensure_ascii=False, allow_nan=False) for name, value in facts.items()}
