"""Loading: turn a name, a file, a run folder or a module into a model with its card.

Uses what each of these is; `usercode` builds, `trust` knows whose code a run may name, `weights` fills, `cards`
infers.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from convscope.blocks.reading import is_network_file, read_network_file
from convscope.cards.card import Card, attach
from convscope.cards.card_inference import card_of, infer_card
from convscope.cards.unregistered import unregistered_note
from convscope.data.options import check_bytes
from convscope.errors import DataWarning, ModelError, RunError, UnknownName, UsageError, WeightsError
from convscope.models import user_code
from convscope.models.catalog import MODELS
from convscope.models.checked_imports import Imports, watching
from convscope.models.network_arguments import unfit
from convscope.models.preparation import evaluate, settle
from convscope.models.run_config import ModelConfig, read_model_config
from convscope.models.trust import allowed_imports, refusal, remember
from convscope.models.weights import load_weights
from convscope.preprocess import Preprocess
from convscope.type_checks import kind_of, takes

HINT = "A model is also file.py:Class, package.module:factory, a file of blocks (net.json) or a run folder."
RUN_WEIGHTS = "weights.safetensors"
NUMBER_BYTES = 4
"""Bytes of a weight, a float32."""
SMALL = 10_000_000
"""Networks up to this many numbers (40 MB) are built whatever the size of the run's weights."""


@takes(spec="str | Path | Module | ExportedProgram", weights="Any", weights_key="Any", classes="Any")
def load_model(
    spec: str | Path | nn.Module | torch.export.ExportedProgram,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    args: Mapping[str, object] | None = None,
    preprocess: Preprocess | Mapping[str, object] | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    trust: bool = False,
) -> nn.Module:
    """Load a model: a built-in network, your own network, or a run folder.

    >>> load_model("simple-cnn", args={"kernels": 4}).conv1
    Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))

    Args:
        spec: A name of `MODELS`, `file.py:Class`, `package.module:factory`, a file of blocks (`net.json`, see
            `cs.blocks`), a run folder, an nn.Module, or a program of torch.export. A run in the working folder with
            the same name as a network of `MODELS` takes precedence, and a note says so.
        weights: A safetensors file, or a state dict or checkpoint that `torch.save` wrote; without it, a run's own,
            else fresh ones.
        weights_key: Where in a checkpoint the weights are, such as "state_dict_ema"; None finds them.
        args: Keyword arguments of the network; a name with arguments, be they none, is the network and never a run.
        preprocess: What the model expects of a picture, or only the fields that differ from what was found.
        classes: Names of the outputs, in order.
        seed: What fresh weights are drawn by; PyTorch's own random state stays as it is.
        trust: Whether the code that a run folder names may be executed, now and from now on, as long as neither the
            folder's place, nor the code, nor its arguments change. Runs that were trained here, and runs of built-in
            networks, need no trust; see docs/explanation/security.md.

    Returns:
        The model in eval mode, on the CPU. Its card (`card_of(model)`) says what it expects, and in `notes` what
        loading had to do or to guess. Lazy layers get their shapes from `weights`, from `preprocess` with size and
        channels, or from the first image that is traced.

    Raises:
        UsageError: nothing of this name exists, it does not take these arguments, or two classes have one name.
        ModelError: the code of the network fails.
        WeightsError: the weights cannot be read safely or do not fit.
        RunError: a folder that no training made, or one whose network only you can build.
        TrustError: a run folder names code that you have not trusted, or that has changed since.

    Warns:
        DataWarning: a run's weights are damaged, and those of its last good snapshot are used; or that you trust a run
            cannot be remembered.
    """
    source: str | Path | nn.Module = user_code.as_module(spec)
    if isinstance(source, nn.Module):
        model, card = user_code.build(type(source).__name__, source, args or {}), card_of(source)
    else:
        is_path = isinstance(source, Path) or (args is None and Path(source, "config.json").is_file())
        name = _as_path(source) if is_path else source
        model, card, weights = _build(str(name), weights, args or {}, seed, trust=trust)
        if isinstance(source, str) and name != source:
            note = f"{source} is the run in {Path(name).resolve()}, not the built-in network of that name."
            card = replace(card, notes=(*card.notes, note))
    if weights is not None:
        notes = _filled(model, weights, weights_key)
        card = replace(_with_config(card, model, Path(weights)), notes=(*card.notes, *notes))
    elif weights_key is not None:
        raise UsageError("weights_key is the key of the weights in a file; pass weights too.")
    if preprocess is not None:
        card = _expecting(card, _preprocess(preprocess, card.preprocess))
    if classes is not None:
        card = replace(card, classes=_classes(classes))
    card = _settled(model, card, seed)
    attach(model, replace(card, notes=(*card.notes, *unregistered_note(model))))
    return evaluate(model)


def _expecting(card: Card, preprocess: Preprocess) -> Card:
    """The card with this preprocessing; what was found for another size no longer applies."""
    current, notes = card.preprocess, card.notes
    if current.size is not None:
        notes = tuple(note for note in notes if f"pictures of {current.size[0]}x{current.size[1]}" not in note)
    if (current.size, current.channels) == (preprocess.size, preprocess.channels):
        return replace(card, preprocess=preprocess, notes=notes)
    return replace(card, preprocess=preprocess, fixed_size=False, size_found=False, notes=notes)


def _settled(model: nn.Module, card: Card, seed: int) -> Card:
    """Give lazy layers their shapes if these are known; returns the updated card and notes."""
    lazy = any(isinstance(module, nn.modules.lazy.LazyModuleMixin) for module in model.modules())
    notes = settle(model, card.preprocess.size, card.preprocess.channels, seed)
    if lazy and not notes and card.preprocess == Preprocess():
        fresh = infer_card(model)
        card = replace(card, preprocess=fresh.preprocess, size_found=fresh.size_found, form=fresh.form)
        notes = fresh.notes
    return replace(card, notes=(*card.notes, *notes))


def _filled(model: nn.Module, weights: str | Path, key: str | None) -> tuple[str, ...]:
    """Load weights; if a run's own are damaged, those of its newest good snapshot, with a warning."""
    try:
        return load_weights(model, weights, key)
    except WeightsError as error:
        path = Path(weights)
        if path.is_file() and not os.access(path, os.R_OK):  # they may be whole, so no others take their place
            raise
        copies = path.parent.glob(f"snapshots/[0-9]*/{RUN_WEIGHTS}") if path.name == RUN_WEIGHTS else ()
        for copy in sorted(copies, reverse=True):
            with suppress(WeightsError):
                notes = load_weights(model, copy)
                warnings.warn(f"{error} Those of {copy.parent} are used.", DataWarning, stacklevel=3)
                return notes
        raise


Built = tuple[nn.Module, Card, str | Path | None]  # a model, its card, and the weights still to be loaded


def _as_path(folder: str | Path) -> str:
    """A run folder, spelled so that it is not mistaken for a built-in network of that name: ./shapes-cnn."""
    return f"./{folder}" if str(folder) in MODELS else str(folder)


def _build(spec: str, weights: str | Path | None, args: Mapping[str, object], seed: int, *, trust: bool) -> Built:
    """The model that a string names, with fresh weights."""
    if is_network_file(spec):
        spec, args = "blocks", {**read_network_file(spec), **args}
    if spec in MODELS:
        return _from_catalog(spec, args, seed), MODELS[spec].card(args), weights
    path = Path(spec).expanduser()
    if path.is_dir():
        if args:
            raise UsageError(f"{spec} is a run folder, which has its model's arguments; leave args out.")
        return _from_run(path, weights, seed, trust=trust)
    if path.suffix == ".py":
        networks = ", ".join(f"{spec}:{name}" for name in user_code.networks_in_file(path)) or f"{spec}:NAME"
        raise UsageError(f"{spec} is a file; name the network in it: {networks}.")
    if path.is_file() and path.suffix == ".pt2":
        raise UsageError(
            f"{spec} is an exported program, which may name code; if you trust it, load it in Python: "
            f"cs.trace(torch.export.load({spec!r}), image)."
        )
    if path.is_file():
        raise UsageError(f"{spec} is a file, and weights do not say the network; name it, and give weights={spec!r}.")
    names_code = ":" in os.path.splitdrive(spec)[1]  # not the colon of a drive, as in C:\runs
    if not names_code and path.name != spec:
        raise RunError(f"there is no run folder {spec}; `convscope train DATASET` writes one and prints its path.")
    if not names_code:
        raise UnknownName("model", spec, MODELS, HINT)
    return *_from_code(spec, args, seed, Imports()), weights


def _from_catalog(name: str, args: Mapping[str, object], seed: int) -> nn.Module:
    """A built-in network, if its weights fit into memory."""
    MODELS[name].check(args)
    if args:
        needed = NUMBER_BYTES * _count_numbers(name, args)
        check_bytes(f"the weights of {name} with these arguments", needed, "Use a smaller size or fewer kernels.")
    return _seeded(seed, lambda: user_code.build(name, MODELS[name].build, args))


def _from_code(spec: str, args: Mapping[str, object], seed: int, imports: Imports) -> tuple[nn.Module, Card]:
    with watching(imports):
        factory, path = user_code.find(spec)
        model = _seeded(seed, lambda: user_code.build(spec, factory, args, path))
    name = spec.rpartition(":")[2]
    return model, replace(card_of(model), name=name, source=spec if path is None else f"{path}:{name}")


def _from_run(run: Path, weights: str | Path | None, seed: int, *, trust: bool) -> Built:
    """The network that a run's config.json names, with the card that it was trained with."""
    config = _config(run)
    source, args = config["model"]["source"], config["model"]["args"]
    run_weights = run / RUN_WEIGHTS
    if weights is None and not run_weights.is_file():
        raise RunError(f"{run} has no {RUN_WEIGHTS}: its training has not saved any weights yet.")
    if source is None:
        raise RunError(
            f"{run} was trained from a module passed in ({config['card']['name']}), which cannot be built from a "
            f"name: build it yourself and load its weights into it: load_model(module, weights={str(run_weights)!r})."
        )
    weights_file = run_weights if weights is None else Path(weights)
    if source in MODELS:
        _check_size(run, source, args, weights_file)
        model, fresh, _ = _build(source, None, args, seed, trust=False)
    else:
        model, fresh = _trusted(run, source, args, seed, trust=trust)
    card = replace(Card.from_json(config["card"]), source=_as_path(run), fixed_size=fresh.fixed_size)
    return model, card, weights_file


def _check_size(run: Path, source: str, args: Mapping[str, object], weights: Path) -> None:
    """Reject arguments that the network does not take, or that need far more numbers than the weights file can hold."""
    config, build = run / "config.json", MODELS[source].build
    try:
        MODELS[source].check(args)
    except UsageError as error:
        raise RunError(f"{config} does not describe a {source}: {error}") from None
    numbers = _count_numbers(source, args)
    problems = unfit(source, build, args)
    if problems:
        raise RunError(f"{config} does not describe a {source}: {problems[0]}.")
    files = [weights, *run.glob(f"snapshots/[0-9]*/{RUN_WEIGHTS}")]
    size = max((file.stat().st_size for file in files if file.is_file()), default=0)
    if numbers > max(size, SMALL):  # a number takes at least a byte
        raise RunError(f"{config} describes a {source} of {numbers:,} numbers; its weights are {size:,} bytes.")


def _count_numbers(source: str, args: Mapping[str, object]) -> int:
    """The numbers that the weights of a built-in network with these arguments are, without allocating them."""
    with torch.device("meta"):  # which takes no memory
        model = _seeded(0, lambda: user_code.build(source, MODELS[source].build, args))
    return sum(value.numel() for value in model.state_dict().values())


def _trusted(run: Path, source: str, args: Mapping[str, object], seed: int, *, trust: bool) -> tuple[nn.Module, Card]:
    """The network that a run names by code, if the user trusts it.

    Raises:
        TrustError: the user does not, or the code imports a file that was not there when the user did.
    """
    imports = allowed_imports(run, source, args, trust=trust)
    try:
        built = _from_code(source, args, seed, imports)
    except (UsageError, ModelError) as error:
        if imports.refused:
            reason = f"which imports {imports.refused!r}, new or changed since you trusted it"
            raise refusal(run, source, args, reason) from None
        raise RunError(f"{run} was trained on {source}, which cannot be built here: {error}") from error
    if trust:
        unwritten = remember(run, source, args, imports)
        if unwritten:
            warnings.warn(unwritten, DataWarning, stacklevel=5)
    return built


def _config(run: Path) -> ModelConfig:
    try:
        return read_model_config(run)
    except FileNotFoundError:
        raise RunError(f"{run} is not a run folder: it has no config.json. {HINT}") from None


def _seeded(seed: int, action: Callable[[], nn.Module]) -> nn.Module:
    """Build with fresh weights drawn from `seed`, without touching PyTorch's random state."""
    if seed >= 2**64:
        raise UsageError(f"seed must be at most {2**64 - 1}, not {seed}.")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # said when it is asked for an answer
        torch.default_generator.manual_seed(seed)
        return action()


def _with_config(card: Card, model: nn.Module, weights: Path) -> Card:
    """The card completed by the image processor's config next to the weights, where it is still unspecified."""
    if card.source in MODELS or not (weights.parent / "preprocessor_config.json").is_file():
        return card
    inferred = infer_card(model, weights.parent)
    return replace(card, preprocess=inferred.preprocess, notes=inferred.notes)


def _classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names, checked to be unique."""
    names = tuple(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f'classes is a list of names, such as ["cat", "dog"], not {classes!r:.80}.')
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None or "" in names:
        problem = "an empty name" if "" in names else f"{repeated!r} twice"
        raise UsageError(f"the classes {', '.join(names)!r} have {problem}; each output needs a name of its own.")
    return names


def _preprocess(changes: Preprocess | Mapping[str, object], detected: Preprocess) -> Preprocess:
    if isinstance(changes, Preprocess):
        return changes
    if not isinstance(changes, Mapping):
        raise UsageError(f"preprocess is a Preprocess or a dict of its fields, not {kind_of(changes)}.")
    defaults = detected.to_json()
    for name in changes:
        if name not in defaults:
            raise UnknownName("field of Preprocess", name, defaults)
    for problem in unfit("Preprocess", Preprocess, changes):
        raise UsageError(f"{problem}.")
    return Preprocess.from_json({**defaults, **changes})
