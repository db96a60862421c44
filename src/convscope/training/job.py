"""A training job: from names and settings to data, model and recipe, and their entries in config.json."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from convscope.cards.card import attach
from convscope.cards.card_inference import card_of
from convscope.cards.unregistered import unregistered_note
from convscope.data.catalog import entry_of, load_dataset
from convscope.data.dataset import Dataset, check_trainable, overlap
from convscope.data.options import check_seed
from convscope.data.value_range import channels_first
from convscope.errors import DataError, ModelError, RunError, ShapeError, UsageError
from convscope.inputs.pictures import check_input
from convscope.models.catalog import DEFAULT_MODELS, MODELS
from convscope.models.checked_imports import Imports, watching
from convscope.models.loading import load_model
from convscope.models.run_config import CardPart, DatasetPart, OptionsPart, RunConfig
from convscope.preprocess import Preprocess
from convscope.progress import Progress
from convscope.training.engines import check_numpy
from convscope.training.memory_needs import check_step_memory
from convscope.training.objectives import make_loss, make_optimizer
from convscope.training.outputs import answer, in_eval_mode
from convscope.training.recipes import ANY, Recipe, recipe_for
from convscope.training.reproducibility import SMALL, environment, whole_digest
from convscope.training.runtime import Runtime
from convscope.type_checks import kind_of

MODEL_OF_STRANGERS = "mnist-small"
"""The default model for data sets without one of their own: it takes any square size, channels and classes."""

BY_HAND = "given by hand"
JOINED = "the last batch of an epoch would be too small for batch norm, so its images are added to the batch before it."

DataSource = str | Dataset | tuple[object, object]


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """A user's settings for a training; None leaves a choice to the recipe."""

    dataset: DataSource | None
    model: str | nn.Module | None = None
    model_args: Mapping[str, object] | None = None
    model_name: str | None = None
    """The model's name, if the run that is resumed already has one."""
    recipe: str | Recipe = "fast"
    recipe_name: str = "fast"
    changes: Mapping[str, Any] | None = None
    """Recipe settings given by name: epochs, batch_size, lr, optimizer, loss."""
    seed: int | None = None
    test: DataSource | None = None
    data_options: Mapping[str, Any] | None = None
    """More arguments of `load_dataset`: size, image_size, grey, strict, data_dir."""
    device: str = "auto"
    precision: str = "float32"
    engine: str = "torch"
    threads: int | None = None
    """The number of threads; None chooses it by measuring."""
    imports: Imports | None = None
    """The files that the model's code may import, as recorded in a resumed run; None without a limit."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingJob:
    """Everything that a training needs, checked to be consistent."""

    train: Dataset
    test: Dataset | None
    model: nn.Module
    recipe: Recipe
    config: RunConfig
    imports: Imports
    """The files that the model's code imported."""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.config["model"]["name"])

    def facts(self) -> dict[str, Any]:
        """The facts on which all processes of a training must agree."""
        weights = [(name, tuple(value.shape)) for name, value in self.model.state_dict().items()]
        config = self.config
        return {
            "training data": config["dataset"]["sha256"],
            "test data": None if self.test is None else whole_digest(self.test),
            "settings": [config["recipe"], config["seed"], config["precision"], config["engine"]],
            "models": (type(self.model).__qualname__, weights),
        }


def prepare_job(settings: Settings, runtime: Runtime, progress: Progress) -> TrainingJob:
    """Load the data, build the model, choose the recipe; refuse what does not fit.

    Raises:
        UnknownName: unknown data set, model, recipe, optimizer or loss.
        DataError: data that cannot be trained on.
        ShapeError: a model that does not take these images or has too few outputs.
    """
    name = _model_name(settings)
    recipe, recipe_name = _recipe(settings, name)
    seed = check_seed(recipe.seed if settings.seed is None else settings.seed)
    train, test = load_data(settings, recipe, seed, progress)
    check_trainable(train)
    check_alike(train, test)
    notes = tuple(dict.fromkeys((*train.notes, *(test.notes if test else ()))))
    notes += _overlap_note(train, test) if recipe.sampling == "published" else ()
    notes = (*notes, *_empty_classes_note(train))
    requested, recipe = recipe, recipe.for_images(len(train))
    if recipe.epochs > requested.epochs:
        epochs = f"{recipe.epochs} epochs, {requested.least_steps} steps in all."
        few = "s" * (len(train) != 1)
        notes = (*notes, f"Because there are only {len(train):,} image{few}, the training takes {epochs}")
    imports = settings.imports or Imports()
    with watching(imports):
        model, source, args = build_model(settings, name, recipe, train, seed)
        if runtime.device.type == "cpu":
            check_step_memory(model, train.shape, min(recipe.batch_size, len(train)))
        check_fits(model, train, recipe)
    notes = (*notes, *unregistered_note(model))
    preprocess = replace(train.preprocess, size=train.shape[1:], channels=train.shape[0])
    attach(model, replace(card_of(model), name=name, preprocess=preprocess, classes=train.classes, notes=()))
    if not isinstance(settings.recipe, Recipe) and leaves_one(model, recipe, len(train), runtime.world):
        recipe, notes = replace(recipe, join_last=True), (*notes, JOINED)  # stays so when resumed
    if settings.engine == "numpy":
        check_numpy(model, recipe)
    config: RunConfig = {
        "format": 1,
        "dataset": _data_config(settings, recipe, seed, train),
        "test": settings.test if settings.test is None or isinstance(settings.test, str) else BY_HAND,
        "model": {"name": name, "source": source, "args": args, "class": type(model).__qualname__},
        "card": cast("CardPart", card_of(model).to_json()),
        "recipe": recipe.to_json(),
        "recipe_name": recipe_name,
        "seed": seed,
        "device": settings.device,
        "precision": settings.precision,
        "engine": settings.engine,
        "threads": settings.threads,
        "environment": environment(settings.threads or _most_threads(model), runtime),
        "notes": list(notes),
    }
    return TrainingJob(train, test, model, recipe, config, imports, notes)


def _most_threads(model: nn.Module) -> int:
    return 1 if sum(value.numel() for value in model.parameters()) <= SMALL else torch.get_num_threads()


def load_data(settings: Settings, recipe: Recipe, seed: int, progress: Progress) -> tuple[Dataset, Dataset | None]:
    """The training images, and the test images if there are any."""
    if isinstance(settings.dataset, str):
        options = dict(settings.data_options or {}) | {"seed": seed, "progress": progress}
        if recipe.sampling != "split":
            options["sampling"] = recipe.sampling
        train = load_dataset(settings.dataset, split="train", **options)
        if settings.test is None:
            return train, load_dataset(settings.dataset, split="test", **{**options, "size": None})
    else:
        if settings.dataset is None:
            raise RunError(
                "config.json names no dataset; pass the one the run was trained on: train(dataset, ..., resume=True)"
            )
        train = as_dataset(settings.dataset, "train")
    return train, None if settings.test is None else as_dataset(settings.test, "test", train)


def as_dataset(source: DataSource, split: str, like: Dataset | None = None, *, any_layout: bool = False) -> Dataset:
    """A data set from a name, a Dataset or (images, labels) arrays; classes as in `like`, else by number.

    >>> as_dataset((np.zeros((2, 28, 28), np.uint8), [0, 1]), "train").shape
    (1, 28, 28)
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, str):
        return load_dataset(source, split=split)
    if not isinstance(source, tuple | list) or len(source) != 2:
        raise UsageError(f"data is a name, a Dataset or a pair of arrays (images, labels), not {kind_of(source)}.")
    images, labels = (np.asarray(part) for part in source)
    if images.dtype == np.float64:
        images = images.astype(np.float32)
    if images.ndim == 3:
        images = images[:, None]
    if not any_layout and images.ndim == 4 and channels_first(*images.shape[1:]) is False:
        raise ShapeError(
            f"images are (N, C, H, W), and {images.shape} looks like (N, H, W, C); give images.transpose(0, 3, 1, 2), "
            "or pass a cs.Dataset if this layout is intended."
        )
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels must be class numbers (integers), not {labels.dtype}.")
    classes = like.classes if like else tuple(str(k) for k in range(int(labels.max(initial=-1)) + 1))
    expected = like.preprocess if like else Preprocess(scale=255.0 if images.dtype == np.uint8 else 1.0)
    return Dataset("arrays", images, labels, classes, expected, split)


def leaves_one(model: nn.Module, recipe: Recipe, images: int, processes: int) -> bool:
    """Whether a process would end an epoch with a batch of one image, which batch norm does not accept."""
    left = images = recipe.draws or images
    left %= recipe.batch_size
    normalizes = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    return normalizes and images > recipe.batch_size > 1 and 0 < left < 2 * processes


def check_alike(train: Dataset, test: Dataset | None) -> None:
    """Reject test data with another shape or other classes than the training data."""
    if test is not None and (test.shape, test.classes) != (train.shape, train.classes):
        raise DataError(
            f"the test data have images of {test.shape} in {len(test.classes)} classes, the training data of "
            f"{train.shape} in {len(train.classes)}; they must have the same shape and classes."
        )


def build_model(
    settings: Settings, name: str, recipe: Recipe, data: Dataset, seed: int
) -> tuple[nn.Module, str | None, dict[str, object]]:
    """The model; how to build it again, or None if only the user can; and the arguments for that."""
    args = dict(settings.model_args or {})
    if isinstance(settings.model, nn.Module):
        model, source = settings.model, None
    else:
        if recipe.softmax:
            args["softmax"] = True
        if name in MODELS:
            args = MODELS[name].fits(data.shape, len(data.classes)) | args
        model = load_model(settings.model or name, args=args, seed=seed)
        source = card_of(model).source
    return model, source, args


def check_fits(model: nn.Module, data: Dataset, recipe: Recipe) -> None:
    """Reject a recipe with unknown names, and a model that does not fit the images or the number of classes."""
    make_loss(recipe)
    make_optimizer(model, recipe)
    first = data.preprocess.normalize(data.first())
    check_input(model, first[0], "use another model, or build yours for these images")
    other_entries = [name for name, value in model.state_dict().items() if not isinstance(value, torch.Tensor)]
    if other_entries:
        raise ModelError(
            f"the model's state has {other_entries[0]}, which is not a tensor; a run can store only tensors."
        )
    parameter = next(model.parameters(), torch.empty(0))
    with torch.no_grad(), in_eval_mode(model):
        output = answer(model, torch.from_numpy(first).to(parameter.device, parameter.dtype))
    outputs, classes = output.shape[1], len(data.classes)
    if outputs < classes and not (outputs == 1 and recipe.loss == "mse"):
        raise ShapeError(
            f"the model has {outputs} output{'s' * (outputs != 1)} and {data.name} has {classes} classes; "
            "it needs one output per class (or a single one with --loss mse)."
        )


def _recipe(settings: Settings, model: str) -> tuple[Recipe, str]:
    """The recipe with the user's changes applied, and its name."""
    if isinstance(settings.recipe, Recipe):
        return settings.recipe, settings.recipe_name
    is_tutorial_data = isinstance(settings.dataset, str) and settings.dataset in made_for(model)
    if settings.recipe == "fast" and not is_tutorial_data:
        return ANY.with_changes(**(settings.changes or {})), "fast"
    recipe = recipe_for(model, settings.recipe)
    if not is_tutorial_data and isinstance(settings.dataset, str):
        raise UsageError(
            f"the tutorial trains {model} on {made_for(model)[0]}, not on {settings.dataset}; use --recipe fast."
        )
    return recipe.with_changes(**(settings.changes or {})), settings.recipe


def made_for(model: str) -> tuple[str, ...]:
    """The data sets that a built-in model is made for."""
    return MODELS[model].data if model in MODELS else ()


def _model_name(settings: Settings) -> str:
    if settings.model_name is not None:
        return settings.model_name
    if isinstance(settings.model, nn.Module):
        return type(settings.model).__name__
    if settings.model is not None:
        return settings.model
    name = settings.dataset if isinstance(settings.dataset, str) else ""
    if isinstance(settings.dataset, str):
        entry_of(name)
    return DEFAULT_MODELS.get(name, MODEL_OF_STRANGERS)


def _data_config(settings: Settings, recipe: Recipe, seed: int, train: Dataset) -> DatasetPart:
    source = settings.dataset if isinstance(settings.dataset, str) else None
    options = {key: value for key, value in (settings.data_options or {}).items() if value is not None}
    if "data_dir" in options:
        options["data_dir"] = str(options["data_dir"])
    if recipe.sampling != "split":
        options["sampling"] = recipe.sampling
    return {
        "name": train.name,
        "source": source,
        "seed": seed,
        "options": cast("OptionsPart", options),
        "sha256": whole_digest(train),
    }


def _empty_classes_note(train: Dataset) -> tuple[str, ...]:
    counts = np.bincount(train.labels, minlength=len(train.classes))
    empty = [name for name, count in zip(train.classes, counts, strict=True) if not count]
    return (f"no training image belongs to the class {', '.join(empty)}: the model cannot learn it.",) if empty else ()


def _overlap_note(train: Dataset, test: Dataset | None) -> tuple[str, ...]:
    if test is None:
        return ()
    shared = overlap(train, test)
    return (
        f"{shared} of the {len(test)} test images also occur in training: the tutorial draws both from the same "
        f"{len(load_dataset(train.name, split='all')):,} possible images.",
    )
