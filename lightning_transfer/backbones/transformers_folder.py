"""Saved folders of transformers, from the disk or through the hub's cache: weights, card, source head."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lightning_transfer.backbones import transformers_models as models
from lightning_transfer.backbones.cards import front_matter, read_json
from lightning_transfer.backbones.libraries import Built, explain_failures, explain_torchaudio, import_library
from lightning_transfer.backbones.speech_processor import read_ctc_head, speech_processor
from lightning_transfer.backbones.transformers_models import Form
from lightning_transfer.backbones.weights_file import LoadReport, linear_of
from lightning_transfer.errors import BackboneError, listing
from lightning_transfer.types import BackboneCard

__all__ = ["describe", "fetch", "load", "source_head"]

_log = logging.getLogger(__name__)

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_PICKLES = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
_OLD_TOKENIZERS = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
_MARK = "masked_spec_embed"
_SETTINGS = ("*.json", "*.txt", "*.model", "README.md")


def fetch(identifier: str, name: str, *, weights: bool = True) -> Path:
    """Bring a model of the Hugging Face hub into the local cache, and return its folder.

    Args:
        identifier: ``organisation/model``, or ``organisation/model@revision``.
        name: The backbone as the user wrote it, for messages.
        weights: False fetches the configuration only.

    Raises:
        BackboneError: If neither the cache nor the hub has it, with the way out.
    """
    hub = import_library("huggingface_hub")
    repository, _, revision = identifier.partition("@")
    if repository.startswith("timm/"):
        raise BackboneError(f"`{name}` is a timm model. Write `{repository}` instead.")
    cache = Path(import_library("huggingface_hub.constants").HF_HUB_CACHE)
    place = cache / f"models--{repository.replace('/', '--')}"
    found = {"repo_id": repository, "revision": revision or None}
    with explain_failures(name, place):
        # Tokenizers and configurations first; of the sub-folders only the pooling counts (onnx/ and others repeat
        # the weights).
        folder = Path(hub.snapshot_download(**found, allow_patterns=list(_SETTINGS), ignore_patterns=["*/*"]))
        hub.snapshot_download(**found, allow_patterns=["1_Pooling/config.json"])
        if weights:
            # Adapters of single languages (MMS has over a thousand) are no part of the model.
            hub.snapshot_download(**found, allow_patterns=list(_WEIGHTS), ignore_patterns=["*/*", "adapter.*"])
            if not any(folder.glob("*.safetensors")):
                hub.snapshot_download(**found, allow_patterns=list(_PICKLES), ignore_patterns=["*/*"])
            if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
                raise FileNotFoundError(f"No weights in {folder}")
    return folder


def describe(folder: Path, name: str, source: str, pooling: str | None = None) -> BackboneCard:
    """Make the card of a saved folder from its configuration, processor files and model card.

    Args:
        folder: Holds ``config.json``.
        name: The backbone as the user wrote it.
        source: ``hf`` or ``local``.
        pooling: Overrides what the folder says.

    Raises:
        BackboneError: If a file is damaged, or the folder asks for a pooling that we do not have.
    """
    config = models.load_config(folder)
    modality = models.modality_of(config)
    if pooling is None:
        pooling = _stated_pooling(folder) or models.choose_pooling(config, modality)
    processor: dict[str, Any]
    if modality == "audio":
        processor = speech_processor(folder, config)
    else:
        processor = {
            key: value
            for key, file in (
                ("preprocessor", "preprocessor_config.json"),
                ("tokenizer", "tokenizer_config.json"),
                ("sentence", "sentence_bert_config.json"),
            )
            if (value := read_json(folder / file))
        }
    if (modality == "text" or config.model_type == "whisper") and (tokenizer := _tokenizer_of(folder)):
        processor["tokenizer_json"] = tokenizer
    front = front_matter(folder / "README.md")
    image = _image_settings(config, processor.get("preprocessor", {})) if modality == "image" else {}
    return BackboneCard(
        name=name,
        architecture=f"hf/{config.model_type}",
        source=source,
        licence=str(front.get("license") or "unknown"),
        modality=modality,  # type: ignore[arg-type]
        pretraining=_datasets(front),
        pooling=pooling,
        architecture_config=models.plain_config(config),
        processor=processor,
        **image,
    )


def load(folder: Path, card: BackboneCard, form: Form = "pooled") -> Built:
    """Load the network of a saved folder, as the card says, and log what was kept and dropped.

    Of an encoder-decoder the encoder is taken, but for the form ``seq2seq``.

    Raises:
        BackboneError: If weights are missing, damaged, of another shape, or would run code when read.
    """
    config = models.make_config(card.architecture.partition("/")[2], card.architecture_config, str(folder))
    config = models.trained_config(config, form)
    if form == "seq2seq":
        whole, info = _from_pretrained("AutoModelForSpeechSeq2Seq", folder, config, {})
    else:
        whole, info = _from_pretrained("AutoModel", folder, config, models.pooler_arguments(config, card.pooling))
    built = models.wrap(whole, config, card.pooling, form)
    own = {id(item): name for name, item in _tensors(built.module)}
    in_use = {name for name, item in _tensors(whole) if id(item) in own}
    lacking = sorted(key for key in info["missing_keys"] if key in in_use)
    missing = [key for key in lacking if key.rpartition(".")[2] != _MARK]
    if missing != lacking:
        # Many published checkpoints lack it: it only stands for frames that a mask hides while training.
        _log.info("%s: no `%s` in the weights; masked frames are zero.", folder, _MARK)
        dict(whole.named_parameters())[_MARK].detach().zero_()
    if missing:
        raise BackboneError(
            f"The weights in `{folder}` lack {len(missing)} tensors of `{card.architecture}`: {listing(missing)}. "
            f"The configuration belongs to other weights."
        )
    kept = tuple(own.values())
    aside = [name for name, _ in _tensors(whole) if name not in in_use]
    LoadReport(kept=kept, head=(*sorted(info["unexpected_keys"]), *aside)).log(str(folder))
    return built


def source_head(folder: Path, card: BackboneCard) -> nn.Linear:
    """Load the source task's classifier, where it is a linear layer over the features.

    For images the claim is checked: on one input, the head over the pooled features must give the whole model's
    logits. Of a CTC model it is the layer over each frame.

    Raises:
        BackboneError: If the weights have no head, or one that does more than a linear map of the features.
    """
    config = models.make_config(card.architecture.partition("/")[2], card.architecture_config, str(folder))
    architectures = [str(item) for item in getattr(config, "architectures", None) or ["a bare encoder"]]
    failure = BackboneError(
        f"`{card.name}` ({listing(architectures)}) has no source head that is a linear map of its "
        f"`{card.pooling or 'own'}`-pooled features. Measure forgetting by representation, without `head`."
    )
    if card.modality == "audio" and architectures[0].endswith("ForCTC"):
        tensors = read_ctc_head(folder)
        if tensors and tensors["weight"].shape[1] == models.speech_width(config):
            return linear_of(tensors["weight"], tensors.get("bias"))
    if card.modality != "image" or not architectures[0].endswith("ForImageClassification"):
        raise failure
    whole, _ = _from_pretrained("AutoModelForImageClassification", folder, config, {})
    head = getattr(whole, "classifier", None)
    backbone = load(folder, card).module.eval()
    if not isinstance(head, nn.Linear) or card.input_size is None:
        raise failure
    whole.float().eval()
    pixels = torch.linspace(-1, 1, torch.Size(card.input_size).numel()).reshape(1, *card.input_size)
    with torch.no_grad():
        features = backbone(pixels)
        same = features.shape[1] == head.in_features and torch.allclose(
            head(features), whole(pixel_values=pixels).logits, rtol=1e-3, atol=1e-4
        )
    if not same:
        raise failure
    return head.eval().requires_grad_(False)


def _from_pretrained(
    auto: str,
    folder: Path,
    config: Any,  # noqa: ANN401 - transformers' PreTrainedConfig
    arguments: Mapping[str, Any],
) -> tuple[nn.Module, dict[str, Any]]:
    """Load with transformers itself, which knows sharded files and renamed keys; never a model's own code."""
    failures = (OSError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError)
    with explain_torchaudio():
        transformers = import_library("transformers")
        loader = getattr(transformers, auto)
        verbosity = transformers.logging.get_verbosity()
        # Its report of unused weights is said by our own log, in our words.
        transformers.logging.set_verbosity_error()
        shows_bar = transformers.logging.is_progress_bar_enabled()
        transformers.logging.disable_progress_bar()
        try:
            model, info = loader.from_pretrained(
                str(folder),
                config=config,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                **arguments,
            )
        except failures as error:
            if "torchaudio" in str(error):
                raise
            raise BackboneError(
                f"Cannot load the weights in `{folder}` as `{config.model_type}`: {error} "
                f"Expected `model.safetensors`, or a `pytorch_model.bin` that holds tensors only."
            ) from error
        finally:
            transformers.logging.set_verbosity(verbosity)
            if shows_bar:
                transformers.logging.enable_progress_bar()
    return model, info


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """List parameters and buffers by every name they have: tied ones have several."""
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def _stated_pooling(folder: Path) -> str | None:
    """Read the pooling that sentence-transformers wrote beside the model."""
    values = read_json(folder / "1_Pooling" / "config.json")
    stated = [key.removeprefix("pooling_mode_") for key, value in values.items() if value is True and "pooling_" in key]
    if isinstance(values.get("pooling_mode"), str):
        stated = [values["pooling_mode"]]
    known = {"mean_tokens": "mean", "cls_token": "cls", "mean": "mean", "cls": "cls"}
    if not stated:
        return None
    if len(stated) > 1 or stated[0] not in known:
        raise BackboneError(
            f"`{folder / '1_Pooling'}` asks for the pooling `{'+'.join(stated)}`; `mean` and `cls` exist. "
            f"Choose one by a card with `pooling: mean`."
        )
    return known[stated[0]]


def _image_settings(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Read size, mean and std from the image processor's file."""
    channels = int(getattr(config, "num_channels", 3))
    cropped = values.get("do_center_crop") and values.get("crop_size")
    size = _size(values["crop_size"] if cropped else values.get("size")) or _size(getattr(config, "image_size", None))
    settings: dict[str, Any] = {"interpolation": _RESAMPLING.get(values.get("resample", 2), "bilinear")}
    if size:
        settings["input_size"] = (channels, *size)
    if values.get("do_normalize", True) and "image_mean" in values and "image_std" in values:
        settings |= {"mean": tuple(values["image_mean"]), "std": tuple(values["image_std"])}
    elif values.get("do_normalize") is False:
        settings |= {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    else:
        _log.warning("No `preprocessor_config.json` states mean and std of this model; give them by a card.")
    return settings


def _size(value: Any) -> tuple[int, int] | None:  # noqa: ANN401 - as JSON gives it
    if isinstance(value, Mapping):
        edge = value.get("shortest_edge")
        value = (value.get("height", edge), value.get("width", edge))
    if isinstance(value, int):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(item, int) for item in value):
        return int(value[0]), int(value[1])
    return None


def _tokenizer_of(folder: Path) -> str:
    """Return the fast tokenizer of a folder as text, made from an older form where need be; empty if it has none."""
    file = folder / "tokenizer.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    if not any((folder / name).is_file() for name in _OLD_TOKENIZERS):
        return ""
    with explain_torchaudio():
        transformers = import_library("transformers")
        try:
            made = transformers.AutoTokenizer.from_pretrained(
                str(folder), use_fast=True, local_files_only=True, trust_remote_code=False
            )
            return str(made.backend_tokenizer.to_str())
        except (OSError, ValueError, ImportError, AttributeError, KeyError) as error:
            raise BackboneError(
                f"The tokenizer in `{folder}` cannot be made into a fast one: {error} Put a `tokenizer.json` there."
            ) from error


def _datasets(front: Mapping[str, Any]) -> str:
    names = front.get("datasets") or []
    return ", ".join(str(name) for name in names) if isinstance(names, list) and names else "unknown"
