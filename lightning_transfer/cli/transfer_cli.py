"""`TransferCLI`: Lightning's own command line, with run folders, our precedence and our messages."""

from __future__ import annotations

import os
from argparse import ArgumentError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lightning_transfer import __version__
from lightning_transfer.backbones import LIBRARIES
from lightning_transfer.callbacks import ExactResume, ForgettingMonitor, RetentionBudget
from lightning_transfer.callbacks.retention_budget import RETENTION_SCORE
from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.checkpoint_io import AtomicCheckpointIO
from lightning_transfer.cli.checkpoint_options import CheckpointOptions
from lightning_transfer.cli.clinical_options import ClinicalOptions
from lightning_transfer.cli.cost import CostCallback
from lightning_transfer.cli.decoding_clock import DecodingClock
from lightning_transfer.cli.errors import UsageError, explain, explain_instantiation
from lightning_transfer.cli.evaluation_options import EvaluationOptions
from lightning_transfer.cli.export_options import ExportOptions
from lightning_transfer.cli.feature_cache import add_cache, add_cache_option
from lightning_transfer.cli.heads import LINEAR, find_head
from lightning_transfer.cli.recipe import Kind, Recipe
from lightning_transfer.cli.run_callback import RunFolderCallback
from lightning_transfer.cli.run_checkpoint import RunCheckpoint
from lightning_transfer.cli.run_folder import RUN_DIR_VARIABLE, create, new_folder, remove_empty
from lightning_transfer.cli.segmentation_options import SegmentationOptions
from lightning_transfer.cli.sources import Source
from lightning_transfer.cli.tracking import continue_runs
from lightning_transfer.cli.transcription_options import TranscriptionOptions
from lightning_transfer.cli.verbs import VERBS
from lightning_transfer.data import BaseDataModule
from lightning_transfer.types import Calibration, Schema

if TYPE_CHECKING:
    from lightning_transfer.evaluation import RoutingPolicy

__all__ = ["TransferCLI"]

# A distributed sampler repeats records to fill its last batch: predictions would hold them twice.
_ONE_DEVICE = ("validate", "test", "predict", "plan", "check-data", "export")


class TransferCLI(LightningCLI):
    """Parse a command with one parser for all verbs, and make module, datamodule and trainer; run nothing.

    One parser, not Lightning's one for each Trainer method: every verb reads the same YAML, a fit's saved config
    included, and the start is faster. Lightning would also let a checkpoint's hyperparameters win over the command
    line; without its subcommands it leaves them alone, and the order is ours: command line, configs, checkpoint.

    Args:
        recipe: Names the module's and the datamodule's class.
        arguments: The words of the command line, sorted.
        source: What the command starts from.

    Attributes:
        folder: The run folder. ``output`` within it belongs to this verb; for ``fit`` they are the same.
        run_callback: Writes the folder's files; holds the plan.
        calibration: The checkpoint's; for ``test``, ``predict`` and ``export`` at the false-reject rate asked for.
        routing: The checkpoint's policy for ``test`` and ``predict``, at the precision asked for; None without one.
        resolved: The whole config as the user means it, before a checkpoint replaces the pretrained weights.
    """

    def __init__(self, recipe: Recipe, arguments: Arguments, source: Source) -> None:
        self.recipe = recipe
        self.arguments = arguments
        self.source = source
        self.folder = Path()
        self.output = Path()
        self.calibration = Calibration()
        self.routing: RoutingPolicy | None = None
        self.resolved: Namespace
        # The options below `model` are those of one class, so it is chosen before they are parsed.
        self.head = find_head(recipe, source.configs, arguments.rest)
        verb = VERBS[arguments.verb]
        super().__init__(
            recipe.module_class(self.head),
            recipe.data_class(),
            save_config_callback=None,
            # `plan` and the freezing callback say which parts train; Lightning's table does not know.
            trainer_defaults={"default_root_dir": "runs", "enable_model_summary": False},
            seed_everything_default=0,
            parser_kwargs={
                "prog": f"{recipe.command} {verb.name}",
                "description": f"{verb.help[0].upper()}{verb.help[1:]}.",
                "exit_on_error": False,
                "dump_header": [f"lightning-transfer=={__version__}", f"{recipe.command} {arguments.verb}"],
            },
            args=[word for name in source.configs for word in ("--config", name)] + list(arguments.rest),
            run=False,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of checkpoints and evaluation, and ``ckpt_path``, which `find_source` reads, for configs."""
        if self.recipe.heads:
            heads = Literal[(LINEAR, *self.recipe.heads)]  # type: ignore[valid-type] # made from what the recipe has
            parser.add_argument("--model.head", type=heads, default=self.head, help="What follows the backbone.")
        parser.add_class_arguments(CheckpointOptions, "checkpoint")
        parser.add_class_arguments(self._evaluation_options(), "evaluation")
        if self.arguments.verb == "export":
            parser.add_class_arguments(ExportOptions, skip={"int8"})
            parser.add_argument("--int8", action="store_true", help="Write a quantised model as well.")
        parser.add_argument(
            "--check_data", type=bool, default=True, help="Check the data before training; errors stop the fit."
        )
        add_cache_option(parser)
        if issubclass(self.recipe.data_class(), BaseDataModule):
            parser.link_arguments("check_data", "data.check_data")
        if self.arguments.verb == "check-data":
            parser.add_argument("--strict", action="store_true", help="Exit with 1 for warnings too.")
        if self.arguments.verb == "check-data" and self.kind == "classification":
            parser.add_argument(
                "--suspects",
                action="store_true",
                help="Run the frozen backbone over the data, and list labels that are probably wrong.",
            )
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="Checkpoint to start from, or to go on with (fit)."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a wrong key or value becomes our message."""
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type] # always a list here
        except ArgumentError as error:
            known = dict(parser.get_defaults(skip_validation=True).items())
            raise UsageError(explain(error.message, known)) from error

    def before_instantiate_classes(self) -> None:
        """Keep the config as the user means it; with a checkpoint, build the network without pretrained weights."""
        self.config["ckpt_path"] = None
        self.resolved = self.config.clone()
        if self.arguments.verb != "fit" and self.source.run is not None:
            continue_runs(self.config["trainer"].logger, self.source.run)
        self.calibration = self._find_calibration()
        if self.recipe.routes:
            from lightning_transfer.cli.routing import find_policy

            self.routing = find_policy(self)
        if self.config["model"].pop("head", self.head) != self.head:
            raise UsageError("Write the head as `--model.head NAME`, or below `model:` in a config of its own level.")
        card = self.source.payload.get("card")
        if card is None:
            if self.arguments.verb == "check-data":
                self._forgo_download()
            return
        if "model.weights" in self.config:
            self.config["model.weights"] = "random"
        if "model.card" in self.config:
            self.config["model.card"] = card
        if "model.expand_from" in self.config:
            # The checkpoint has all its classes; the model that it once came from may be gone.
            self.config["model.expand_from"] = None
        if "model.keep_source_head" in self.config:
            # Its weights are in the checkpoint; `attach_source_head` makes the layer for them.
            self.config["model.keep_source_head"] = False

    def _forgo_download(self) -> None:
        """Build a network whose weights would come from a hub without them: the check of data asks for its card."""
        model = self.config["model"]
        if model.get("weights", "") is None and str(model.get("backbone")).partition("/")[0] in LIBRARIES:
            model["weights"] = "random"
            if "keep_source_head" in model:
                model["keep_source_head"] = False

    def instantiate_classes(self) -> None:
        """Make module, datamodule and trainer; what a constructor refuses is the user's to mend."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            raise UsageError(explain_instantiation(error)) from error

    def after_instantiate_classes(self) -> None:
        """Give the module the config that travels in its checkpoints, and its source head back."""
        plain = yaml.safe_load(self.dump())
        self.model.run_config = {name: plain[name] for name in ("model", "data", "evaluation")}
        if self.transcribes and self.arguments.verb in ("fit", "test"):
            # A list that is missing should not cost a fit.
            self.config_init["evaluation"].list_keywords()
        if self.arguments.verb == "predict" and hasattr(self.model, "keep_grids"):
            self.model.keep_grids = self.config_init["evaluation"].save_maps
        if self.draws_masks and self.arguments.verb in ("test", "predict"):
            from lightning_transfer.cli.segmentation_results import MaskSink

            self.model.sink = MaskSink(self, "predict" if self.arguments.verb == "predict" else "test")
        payload = self.source.payload
        if payload.get("schema") and hasattr(self.datamodule, "use_schema"):
            # Lightning restores a checkpoint after the data are read, and reading asks for its classes.
            self.datamodule.use_schema(Schema.from_dict(payload["schema"]))
        shape = payload.get("source_head")
        if shape is not None:
            from torch import nn

            self.model.source_head = nn.Linear(*shape).requires_grad_(False)

    @property
    def kind(self) -> Kind:
        """What the model does: tell classes apart, write down speech, or draw masks."""
        return self.recipe.kind_of(self.head)

    @property
    def transcribes(self) -> bool:
        """Whether the model writes down speech."""
        return self.kind == "transcription"

    @property
    def draws_masks(self) -> bool:
        """Whether the model gives each pixel a class."""
        return self.kind == "segmentation"

    @property
    def tells_findings(self) -> bool:
        """Whether the classes are findings in medical images."""
        return self.recipe.clinical and self.kind == "classification"

    def _evaluation_options(self) -> type[Any]:
        """Return what can be said of the evaluation of such a model."""
        options = {"transcription": TranscriptionOptions, "segmentation": SegmentationOptions}
        return options.get(self.kind, ClinicalOptions if self.tells_findings else EvaluationOptions)

    def _find_calibration(self) -> Calibration:
        """Return the checkpoint's calibration, at the false-reject rate that is asked for.

        Raises:
            UsageError: If that rate has no threshold: it takes a fit to make one.
        """
        calibration = Calibration.from_dict(self.source.payload.get("calibration", {}))
        if self.arguments.verb not in ("test", "predict", "export") or not calibration.points:
            return calibration
        try:
            return calibration.at(self.config["evaluation.max_false_reject_rate"])
        except ValueError as error:
            raise UsageError(str(error)) from error

    def dump(self) -> str:
        """Return the resolved config as YAML; it is a valid ``--config``."""
        text: str = self.parser.dump(self.resolved, skip_none=False)
        return text

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - the Trainer's own
        """Make the run folder, then the trainer with its loggers and checkpoints in that folder."""
        given = self.config_init["trainer"]
        callbacks = given["callbacks"] or []
        callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
        self._check_checkpoints(callbacks)
        self._make_folders(given["default_root_dir"] or "runs")
        if self.arguments.verb != "fit":
            callbacks = [item for item in callbacks if not isinstance(item, Checkpoint)]
            kwargs["enable_checkpointing"] = False
        elif given["enable_checkpointing"] is not False:
            self._place_checkpoints(callbacks)
        only_plan = self.arguments.verb == "plan"
        check = self.arguments.verb == "fit" and bool(self.config_init["check_data"])
        self.run_callback = RunFolderCallback(
            self.output, self.dump(), self.arguments.command, only_plan=only_plan, check_data=check
        )
        # First: it reads the plan before other callbacks freeze anything.
        callbacks.insert(0, self.run_callback)
        if self.arguments.verb in ("fit", "plan"):
            add_cache(callbacks, self.config_init["cache_features"])
        if self.arguments.verb == "fit":
            callbacks.append(CostCallback())
        if self.transcribes and self.arguments.verb == "test":
            callbacks.append(DecodingClock())
        if self.recipe.routes and self.arguments.verb in ("fit", "plan"):
            from lightning_transfer.cli.routing import CostsCallback

            callbacks.insert(1, CostsCallback(self.config_init["evaluation"].misroute_costs))
        if self.tells_findings and self.arguments.verb in ("fit", "plan"):
            from lightning_transfer.cli.clinical import PrevalenceCallback

            callbacks.insert(1, PrevalenceCallback(self.config_init["evaluation"].prevalence))
        if self.arguments.verb == "fit" and not any(isinstance(item, ExactResume) for item in callbacks):
            # Last: other callbacks may draw random numbers when training starts.
            callbacks.append(ExactResume())
        if only_plan:
            kwargs |= {"num_sanity_val_steps": 0, "enable_model_summary": False, "enable_progress_bar": False}
        kwargs["callbacks"] = callbacks
        kwargs["default_root_dir"] = self.output
        if given["logger"] is None or given["logger"] is True:
            kwargs["logger"] = self._loggers() if self.arguments.verb == "fit" else False
        elif given["logger"] is not False and self.arguments.verb == "fit":
            kwargs["logger"] = self._with_curves(given["logger"])
        if self.arguments.verb in _ONE_DEVICE:
            kwargs.update(self._one_device(given))
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except BaseException:
            remove_empty(self.output, self.folder)
            raise
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # neither the user's own nor a device's
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def _make_folders(self, root: str | Path) -> None:
        """Make the run folder, or the verb's folder in an existing one; further processes only look it up."""
        if getattr(rank_zero_only, "rank", 0):
            # Of a launcher that shares no environment, the callback learns the path when the processes can talk.
            self.output = Path(os.environ.get(RUN_DIR_VARIABLE, str(root)))
            self.folder = self.output
            return
        if self.source.run is not None:
            self.folder = self.source.run
        else:
            self.folder = create(root, self.recipe.name, self.source.name)
        inside = self.arguments.verb not in ("fit", "plan") or self.source.run is not None
        self.output = new_folder(self.folder / self.arguments.verb) if inside else self.folder
        os.environ[RUN_DIR_VARIABLE] = str(self.output)

    def _check_checkpoints(self, callbacks: list[Any]) -> None:
        """Refuse options of the default checkpoint where the config has its own."""
        options = vars(self.config_init["checkpoint"])
        given = {name: value for name, value in options.items() if value is not None}
        own = next((type(item).__name__ for item in callbacks if isinstance(item, Checkpoint)), None)
        if given and own is not None and self.arguments.verb == "fit":
            name, value = next(iter(given.items()))
            instead = {
                "max_degradation": "Add `lightning_transfer.RetentionBudget` to the callbacks and let it monitor "
                "`val_retention_score`, or leave one of the two out."
            }
            raise UsageError(
                f"`checkpoint.{name}: {value}` belongs to the default checkpoint, and `trainer.callbacks` "
                f"holds `{own}` instead. {instead.get(name, f'Set `{name}` there, or leave it out.')}"
            )

    def _place_checkpoints(self, callbacks: list[Any]) -> None:
        """Put the user's checkpoints into the run folder where they name none, or add the default one."""
        folder = str(self.output / "checkpoints")
        checkpoints = [item for item in callbacks if isinstance(item, Checkpoint)]
        for item in checkpoints:
            if isinstance(item, ModelCheckpoint) and item.dirpath is None:
                item.dirpath = folder
        if not checkpoints:
            monitor, mode = getattr(self.model, "monitor", None), getattr(self.model, "monitor_mode", "min")
            options = self.config_init["checkpoint"]
            budgeted = options.max_degradation is not None
            if budgeted:
                self._add_budget(callbacks, monitor, mode, options.max_degradation)
                monitor, mode = RETENTION_SCORE, "max"
            callbacks.append(RunCheckpoint(folder, monitor, mode, options.every_n_train_steps, at_epoch_end=budgeted))

    def _add_budget(self, callbacks: list[Any], monitor: str | None, mode: str, limit: float) -> None:
        """Let a budget for what is forgotten choose the epoch; it reads the monitors, so it follows them."""
        if monitor is None or mode != "min":
            raise UsageError(
                f"`checkpoint.max_degradation: {limit}` is for models whose `monitor` is an error that falls, such as "
                f"`val_wer`; here it is `{monitor}` ({mode}). Leave it out, or use on_alarm='interpolate'."
            )
        places = [place for place, item in enumerate(callbacks) if isinstance(item, ForgettingMonitor)]
        callbacks.insert(max(places, default=len(callbacks) - 1) + 1, RetentionBudget(limit, monitor=monitor))

    def _loggers(self) -> list[Logger]:
        # No version: a run's folder is new, and the progress bar would show its last four letters.
        loggers: list[Logger] = [CSVLogger(self.output / "logs", name="csv", version="")]
        try:
            loggers.append(TensorBoardLogger(self.output / "logs", name="tensorboard", version=""))
        except ModuleNotFoundError:
            rank_zero_info("TensorBoard is not installed: metrics are logged as CSV only.")
        return loggers

    def _with_curves(self, given: Logger | list[Logger]) -> list[Logger]:
        """Return the config's own loggers, and the file that the report draws its curves from."""
        loggers = list(given) if isinstance(given, list) else [given]
        if not any(isinstance(item, CSVLogger) for item in loggers):
            loggers.append(CSVLogger(self.output / "logs", name="csv", version=""))
        return loggers

    def _one_device(self, given: Namespace) -> dict[str, Any]:
        """Return what makes the trainer use one device, and say so where the config asked for more."""
        devices = given["devices"]
        one: Any = 1
        if isinstance(devices, list):
            one, asked = devices[:1], len(devices)
        else:
            asked = int(devices) if str(devices).lstrip("-").isdigit() else 1
        nodes = given["num_nodes"] or 1
        if asked != 1 or nodes != 1:
            rank_zero_info(
                f"`{self.arguments.verb}` runs on one device, not on `devices: {devices}`, `num_nodes: {nodes}`: "
                "distributed samplers would repeat records."
            )
        return {"devices": one, "num_nodes": 1, "strategy": "auto"}
