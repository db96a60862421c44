"""Loading: one call from a name, a file, a run folder or a module to a model with its card.

Knows what each of these is; `usercode` builds, `weights` fills, `cards` infers.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.cards import Card, attach, card_of, infer_card
from convscope.errors import DataWarning, ModelError, RunError, UnknownName, UsageError, WeightsError
from convscope.images import Preprocess
from convscope.models import usercode
from convscope.models.arguments import unfit
from convscope.models.catalog import MODELS
from convscope.models.lazies import settle
from convscope.models.modes import evaluate
from convscope.models.weights import load_weights

HINT = "A model is also file.py:Class, package.module:factory or a run folder."
RUN_WEIGHTS = "weights.safetensors"


def load_model(
    spec: str | Path | nn.Module | torch.export.ExportedProgram,
    *,
    weights: str | Path | None = None,
    args: Mapping[str, Any] | None = None,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Load a model: a built-in network, one of your own, or what a training left in a run folder.

    >>> load_model("simple-cnn", args={"kernels": 4}).conv1
    Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))

    Args:
        spec: A name of `MODELS`, `file.py:Class`, `package.module:factory`, a run folder, an nn.Module, or a program of
            torch.export. A run in the working folder that is called like a network of `MODELS` comes before it, and a
            note says so.
        weights: A .safetensors file, or a state dict in a .pt file; without it, a run's own, else fresh ones.
        args: Keyword arguments of the network; a name with arguments, be they none, is the network and never a run.
        preprocess: What the model expects of a picture, or only the fields that differ from what was found.
        classes: Names of the outputs, in order.
        seed: What fresh weights are drawn by; PyTorch's own random state stays as it is.

    Returns:
        The model in eval mode, on the CPU. Its card (`card_of(model)`) says what it expects, and in `notes` what
        loading had to do or to guess. A run of a network of your own imports its code. Lazy layers get their shapes
        from `weights`, from `preprocess` with size and channels, or from the first image that is traced.

    Raises:
        UsageError: nothing of this name exists, it does not take these arguments, or two classes have one name.
        ModelError: the code of the network fails.
        WeightsError: the weights cannot be read safely or do not fit.
        RunError: a folder that is no run, or one whose network only you can build.

    Warns:
        DataWarning: a run's weights are damaged; those of its last good snapshot are used.
    """
    given: str | Path | nn.Module = usercode.as_module(spec)
    if isinstance(given, nn.Module):
        model, card = usercode.build(type(given).__name__, given, args or {}), card_of(given)
    else:
        is_path = isinstance(given, Path) or (args is None and Path(given, "config.json").is_file())
        name = _as_path(given) if is_path else given
        model, card, weights = _build(str(name), weights, args or {}, seed)
        if isinstance(given, str) and name != given:
            told = f"{given} is the run in {Path(name).resolve()}, not the built-in network of that name."
            card = replace(card, notes=(*card.notes, told))
    if weights is not None:
        notes = _filled(model, Path(weights))
        card = replace(_with_config(card, model, Path(weights)), notes=(*card.notes, *notes))
    if preprocess is not None:
        found, card = card.preprocess, replace(card, preprocess=_preprocess(preprocess, card.preprocess))
        same = (found.size, found.channels) == (card.preprocess.size, card.preprocess.channels)
        card = replace(card, fixed_size=card.fixed_size and same, size_found=card.size_found and same)
        if not same and found.size is not None:  # what was noted of that size no longer holds
            about = f"pictures of {found.size[0]}x{found.size[1]}"
            card = replace(card, notes=tuple(note for note in card.notes if about not in note))
    if classes is not None:
        card = replace(card, classes=_classes(classes))
    attach(model, _settled(model, card, seed))
    return evaluate(model)


def _settled(model: nn.Module, card: Card, seed: int) -> Card:
    """Give lazy layers their shapes where those are known by now; the card with what they say and what is to know."""
    lazy = any(isinstance(module, nn.modules.lazy.LazyModuleMixin) for module in model.modules())
    notes = settle(model, card.preprocess.size, card.preprocess.channels, seed)
    if lazy and not notes and card.preprocess == Preprocess():
        fresh = infer_card(model)
        card = replace(card, preprocess=fresh.preprocess, size_found=fresh.size_found, form=fresh.form)
        notes = fresh.notes
    return replace(card, notes=(*card.notes, *notes))


def _filled(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load weights; where a run's own are damaged, those of its newest snapshot that is good, with a warning."""
    try:
        return load_weights(model, path)
    except WeightsError as error:
        copies = path.parent.glob(f"snapshots/[0-9]*/{RUN_WEIGHTS}") if path.name == RUN_WEIGHTS else ()
        for copy in sorted(copies, reverse=True):
            with suppress(WeightsError):
                notes = load_weights(model, copy)
                warnings.warn(f"{error} Those of {copy.parent} are used.", DataWarning, stacklevel=3)
                return notes
        raise


Built = tuple[nn.Module, Card, str | Path | None]  # a model, its card, and the weights still to be loaded


def _as_path(folder: str | Path) -> str:
    """A run folder, spelled so that nobody takes it for a built-in network of that name: ./shapes-cnn."""
    return f"./{folder}" if str(folder) in MODELS else str(folder)


def _build(spec: str, weights: str | Path | None, args: Mapping[str, Any], seed: int) -> Built:
    """What a string names, with fresh weights."""
    if spec in MODELS:
        MODELS[spec].check(args)
        model = _seeded(seed, lambda: usercode.build(spec, MODELS[spec].build, args))
        return model, MODELS[spec].card(args), weights
    path = Path(spec).expanduser()
    if path.is_dir():
        if args:
            raise UsageError(f"{spec} is a run folder, which has its model's arguments; leave args out.")
        return _from_run(path, weights, seed)
    if path.suffix == ".py":
        known = ", ".join(f"{spec}:{name}" for name in usercode.networks_in_file(path)) or f"{spec}:NAME"
        raise UsageError(f"{spec} is a file; name the network in it: {known}.")
    if path.is_file():
        raise UsageError(f"{spec} is a file, and weights do not say the network; name it, and give weights={spec!r}.")
    if ":" not in spec and path.name != spec:
        raise RunError(f"there is no run folder {spec}; `convscope train DATASET` makes one and says where.")
    if ":" not in spec:
        raise UnknownName("model", spec, MODELS, HINT)
    return *_from_code(spec, args, seed, usercode.find(spec)), weights


def _from_code(spec: str, args: Mapping[str, Any], seed: int, found: tuple[Any, Path | None]) -> tuple[nn.Module, Card]:
    factory, path = found
    model = _seeded(seed, lambda: usercode.build(spec, factory, args, path))
    name = spec.rpartition(":")[2]
    return model, replace(card_of(model), name=name, source=spec if path is None else f"{path}:{name}")


def _from_run(run: Path, weights: str | Path | None, seed: int) -> Built:
    """The network that a run's config.json names, with the card that it was trained with."""
    config = _config(run)
    source, args = config["model"]["source"], config["model"]["args"]
    own = run / RUN_WEIGHTS
    if weights is None and not own.is_file():
        raise RunError(f"{run} has no {RUN_WEIGHTS}: its training saved none yet.")
    if source is None:
        raise RunError(
            f"{run} was trained from a module given by hand ({config['card']['name']}), which cannot be built from a "
            f"name: build it yourself and load its weights into it: load_model(module, weights={str(own)!r})."
        )
    if source in MODELS:
        model, fresh, _ = _build(source, None, args, seed)
    else:
        model, fresh = _from_code(source, args, seed, _trusted(run, source, args))
    card = replace(Card.from_json(config["card"]), source=_as_path(run), fixed_size=fresh.fixed_size)
    return model, card, own if weights is None else weights


def _config(run: Path) -> dict[str, Any]:
    path = run / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Card.from_json(config["card"])
        _ = config["model"]["source"], dict(config["model"]["args"])
    except FileNotFoundError:
        raise RunError(f"{run} is no run folder: it has no config.json. {HINT}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is damaged, or not written by a training of convscope ({type(error).__name__}: {error})."
        ) from None
    return config


def _trusted(run: Path, source: str, args: Mapping[str, Any]) -> tuple[Any, Path | None]:
    """The code that a run names; a folder from elsewhere must not choose what is called here."""
    place = source.rpartition(":")[0]
    top = place.partition(".")[0]
    beside = (run / top).exists() or (run / f"{top}.py").exists()
    if Path(place).resolve().is_relative_to(run.resolve()) if place.endswith(".py") else beside:
        raise RunError(f"{run} wants to run code of its own ({source}), which is not done; load the model by hand.")
    try:
        found = usercode.find(source)
    except (UsageError, ModelError) as error:
        raise RunError(f"{run} was trained on {source}, which cannot be built here: {error}") from error
    if not usercode.trusted(found[0]):
        raise RunError(
            f"{run} was trained on what {source} makes; as a run folder may come from anybody, it is not called "
            f"unasked: load_model({source!r}, args={dict(args)!r}, weights={str(run / RUN_WEIGHTS)!r})."
        )
    return found


def check_trusted(run: Path, source: str, args: Mapping[str, Any]) -> None:
    """Refuse to build what a run folder names, unless it is a built-in or code that the user could have meant.

    Raises:
        RunError: the run names code of its own, or a function that is not known to make a model.
    """
    if source not in MODELS:
        _trusted(run, source, args)


def _seeded(seed: int, action: Callable[[], nn.Module]) -> nn.Module:
    """Build with fresh weights drawn by `seed`, PyTorch's random state left alone."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # said when it is asked for an answer
        torch.default_generator.manual_seed(seed)
        return action()


def _with_config(card: Card, model: nn.Module, weights: Path) -> Card:
    """The card with what an image processor's config beside the weights says, where nobody else said anything."""
    if card.source in MODELS or not (weights.parent / "preprocessor_config.json").is_file():
        return card
    beside = infer_card(model, weights.parent)
    return replace(card, preprocess=beside.preprocess, notes=beside.notes)


def _classes(given: Sequence[str]) -> tuple[str, ...]:
    """The names of the outputs, each its own."""
    names = tuple(given)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        said = "an empty name" if "" in names else f"{twice!r} twice"
        raise UsageError(f"the classes {', '.join(names)!r} have {said}; each output needs a name of its own.")
    return names


def _preprocess(given: Preprocess | Mapping[str, Any], found: Preprocess) -> Preprocess:
    if isinstance(given, Preprocess):
        return given
    known = found.to_json()
    for name in given:
        if name not in known:
            raise UnknownName("field of Preprocess", name, known)
    for said in unfit("Preprocess", Preprocess, given):
        raise UsageError(f"{said}.")
    return Preprocess.from_json({**known, **given})
