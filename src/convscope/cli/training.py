"""The commands train, evaluate and predict, and the progress of a training."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.progress import BarColumn, Progress, TextColumn

import convscope as cs
from convscope.cli.console import (
    Bars,
    drop_output,
    duration,
    hushed,
    reading_progress,
    remark,
    say,
    show_json,
    show_text,
)
from convscope.cli.inspection import weight_lines, weights_of
from convscope.cli.options import (
    Commands,
    DataDir,
    Grey,
    Json,
    Loading,
    ModelArgs,
    RunTrust,
    Size,
    Strict,
    Trust,
    in_many,
    is_run,
    parse_size,
    spread,
    with_consent,
)
from convscope.render.numbers import decimal, fixed, percent

FEW = 4
"""A data set of up to this many training images is answered image by image when its training ends."""


class TrainingProgress:
    """Draws the events of one training."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.start: cs.StartEvent | None = None
        """The first event, which says what is trained and how."""
        self.began: tuple[int, float] | None = None

    def tell(self, event: "cs.Event") -> None:
        """Draw one event; the training continues even if the output is closed or the disk is full."""
        try:
            if event["event"] == "start":
                self._start(event)
            elif event["event"] == "progress":
                self._progress(event)
            elif event["event"] == "train":
                self._train(event)
            else:
                self._epoch(event)
        except OSError as error:
            if error.filename == "standard output":
                drop_output()
                with suppress(OSError):
                    remark(f"note: standard output: {error.strerror}; the training continues without it.")

    def _start(self, event: "cs.StartEvent") -> None:
        self.start = event
        recipe = event["recipe"]
        draws = f" of {recipe['draws']:,} random draws" if recipe["draws"] else ""
        peak = "up to " if recipe["schedule"] != "constant" else ""
        self.task = self.bar.add_task("", total=event["total"], completed=event["step"], numbers="")
        say(
            f"{event['model']} ({event['parameters']:,} parameters) on {event['dataset']} "
            f"({event['images']:,} images): "
            f"{recipe['epochs']} epoch{'s' * (recipe['epochs'] != 1)}{draws}, batch {recipe['batch_size']}, "
            f"{recipe['optimizer']}, lr {peak}{recipe['lr']:g}, {recipe['loss']}, on {event['device']}"
        )
        for note in event["notes"]:
            remark(f"note: {note}")
        if event["resumed"]:
            say(f"continuing after step {event['step']:,} of {event['total']:,}")

    def _progress(self, event: "cs.ProgressEvent") -> None:
        if self.began is None:
            self.began = event["step"], event["seconds"]
            return
        steps, seconds = event["step"] - self.began[0], event["seconds"] - self.began[1]
        means = f"loss {decimal(event['loss'])}  accuracy {percent(event['accuracy'])}"
        numbers = f"epoch {event['epoch']}/{event['epochs']}  {means}"
        if steps and seconds > 0:
            rate = steps / seconds
            left = (event["total"] - event["step"]) / rate
            numbers += f"  {rate * self._recipe['batch_size']:,.0f} images/s  {duration(left)} left"
        self.bar.update(self.task, completed=event["step"], numbers=numbers)

    def _train(self, event: "cs.TrainEvent") -> None:
        every = self._recipe["log_every"]
        if every:
            mean = f"  mean of {every:,} steps" if every > 1 else ""
            say(f"step {event['step']:>6,}  loss {fixed(event['loss'])}{mean}")

    def _epoch(self, event: "cs.EpochEvent") -> None:
        if not self._worth_a_line(event["epoch"]):
            return
        line = f"epoch {event['epoch']:>3}  loss {decimal(event['loss'])}  accuracy {percent(event['accuracy'])}"
        if "test_accuracy" in event:
            line += f"  test loss {decimal(event['test_loss'])}  test accuracy {percent(event['test_accuracy'])}"
        if "skipped" in event:
            line += f"  ({event['skipped']:,} skipped)"
        say(f"{line}  {duration(event['seconds'])}")

    @property
    def _recipe(self) -> dict[str, Any]:
        assert self.start is not None
        return self.start["recipe"]

    def _worth_a_line(self, epoch: int) -> bool:
        """Whether to print an epoch: all of up to thirty, else thirty of them evenly, and the last."""
        epochs = self._recipe["epochs"]
        return bool(epoch == epochs or epoch % max(1, epochs // 30) == 0)


@contextmanager
def training_progress() -> Iterator[TrainingProgress]:
    """A watcher whose bar is removed when the training ends; Ctrl-C prints the message of `cs.train`."""
    columns = (BarColumn(20), TextColumn("{task.fields[numbers]}"))
    try:
        with Bars(*columns) as bar:
            yield TrainingProgress(bar)
    except KeyboardInterrupt as stop:
        if not hushed():
            remark(str(stop) or "stopped")
        raise typer.Exit(130) from None


@dataclass(frozen=True, slots=True)
class RecipeChanges:
    """The options that override settings of the recipe."""

    HEADING: ClassVar = "Settings"

    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None
    lr: Annotated[float | None, typer.Option(help="Learning rate; the peak, if the schedule varies it.")] = None
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw, sgd, adadelta, rmsprop, ...")] = None
    loss: Annotated[str | None, typer.Option(help="cross-entropy, mse or nll.")] = None
    schedule: Annotated[str | None, typer.Option(help="Learning rate schedule: constant or one-cycle.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of generated data, initial weights and order.")] = None


@dataclass(frozen=True, slots=True)
class Computation:
    """The options for where and how the training is computed."""

    HEADING: ClassVar = "Computation"

    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1, mps.")] = None
    precision: Annotated[str | None, typer.Option(help="float32 (default), bfloat16 or float64.")] = None
    engine: Annotated[str | None, typer.Option(help="Compute engine: torch (default) or numpy.")] = None
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; by default as many as are fastest, measured now and then.")
    ] = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of the run's folder."""

    HEADING: ClassVar = "Run"

    out: Annotated[Path | None, typer.Option(help="The run's folder; by default runs/MODEL.")] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out, or the newest unfinished one; start a new one if --out is empty.",
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The options of how images are made or loaded."""

    HEADING: ClassVar = "Data"

    images: Annotated[int | None, typer.Option(help="Number of images to generate (shapes, color-shapes).")] = None
    data_dir: DataDir = None
    size: Size = None
    grey: Grey = False
    strict: Strict = False

    def options(self) -> dict[str, object]:
        """The options that are set, as keyword arguments of `cs.load_dataset`."""
        size = parse_size(self.size)
        selected = {"size": self.images, "data_dir": self.data_dir, "image_size": size, "grey": self.grey}
        return {name: value for name, value in {**selected, "strict": self.strict}.items() if value}


@spread
def train(
    dataset: Annotated[
        str | None, typer.Argument(help="shapes, mnist, folder:PATH, ... (see `convscope datasets`)")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A built-in model, file.py:Class, package.module:factory or net.json.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="fast (default), or tutorial for the published settings.")] = None,
    *,
    changes: RecipeChanges,
    computation: Computation,
    folder: RunOptions,
    data: TrainingData,
    model_arg: ModelArgs = None,
    trust: RunTrust = False,
) -> None:
    """Train a network and write a run folder: `convscope train shapes`."""

    def begin(trusted: bool) -> "tuple[cs.Run, cs.StartEvent | None]":
        with reading_progress() as progress, training_progress() as watcher:
            run = cs.train(
                dataset,
                model,
                recipe=recipe,
                **asdict(changes),
                **asdict(computation),
                **asdict(folder),
                model_args=cs.parse_model_args(model_arg or []),
                data_options=data.options(),
                watch=watcher.tell,
                progress=progress,
                trust=trusted,
            )
        return run, watcher.start

    _show_end(*with_consent(begin, trust=trust))


def _show_end(run: "cs.Run", start: "cs.StartEvent | None") -> None:
    """Print how a training ended; `start` is None if there was nothing left to train."""
    if hushed():  # another process prints, and the run may exist only on its disk
        return
    if start is None:
        more = " Train longer with --epochs." if run.recipe.schedule == "constant" else ""
        say(f"{run.path} is already finished; nothing is left to train.{more}")
        return
    say(f"{run.path} was written after {duration(run.metrics['seconds'])} of training")
    changes = run.thread_changes
    if changes:
        say(thread_line(run.config["environment"]["threads"], changes))
    for line in weight_lines(weights_of(run.model)):
        say(line)
    if start["images"] <= FEW:
        _answer_test_images(run)
    say(f"next: convscope evaluate {shlex.quote(str(run.path))}")


def thread_line(first: int, changes: Mapping[int, int]) -> str:
    """With how many threads a training was computed.

    >>> thread_line(2, {413: 1, 2100: 2})
    'computed with 2 threads, after step 413 with 1, after step 2,100 with 2: that was faster'
    """
    few = [f"after step {step:,} with {count}" for step, count in sorted(changes.items())[:3]]
    more = [f"then {len(changes) - 3} more changes"] if len(changes) > 3 else []
    return ", ".join([f"computed with {first} threads", *few, *more]) + ": that was faster"


def _answer_test_images(run: "cs.Run") -> None:
    """Print the prediction for each test image of a data set that has only a few."""
    source = run.config["dataset"]["source"]
    assert source is not None  # the command names its data set
    for name in cs.load_dataset(source, split="test").names or ():
        _show_prediction(cs.predict(run, f"{source}:{name}")[0], top=2)


def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder.")],
    dataset: Annotated[str | None, typer.Argument(help="Another data set than the run's own.")] = None,
    split: Annotated[str, typer.Option(help="train, test or all.")] = "test",
    data_dir: DataDir = None,
    strict: Strict = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Evaluate a run: accuracy, loss, recall and precision of each class, confusion matrix."""
    result = scores(run, trust, dataset, split=split, data_dir=data_dir, strict=strict)
    for note in result.notes:
        remark(f"note: {note}")
    if as_json:
        show_json(result.to_json())
        return
    show_text(result.to_text())


def scores(
    run: str, trust: bool, dataset: str | None, *, split: str, data_dir: Path | None, strict: bool = False
) -> "cs.Evaluation":
    """The result of `cs.evaluate` for a run, once its code is trusted."""

    def measure(trusted: bool) -> "cs.Evaluation":
        if trusted:
            cs.load_model(Path(run), trust=True)
        return cs.evaluate(run, dataset, split=split, data_dir=data_dir, strict=strict)

    return with_consent(measure, trust=trust)


@spread
def predict(
    run: Annotated[str, typer.Argument(help="A run folder or a model.")],
    images: Annotated[list[str], typer.Argument(help="Image files, or dataset:split/index such as mnist:test/7.")],
    *,
    top: Annotated[int, typer.Option(min=1, help="How many classes to list.")] = 3,
    loading: Loading,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Predict the classes of pictures, including your own."""
    loaded = loading.load(run)
    subject = cs.load_run(run) if is_run(run) and not loading.given else loaded  # a run knows where its data is
    predictions, unreadable = _predict_readable(subject, images, data_dir)
    if as_json:
        show_json([prediction.to_json() for prediction in predictions])
    else:
        _show_predictions(predictions, top)
    for error in unreadable:
        remark(f"error: {error}")
    if unreadable:
        raise typer.Exit(unreadable[0].exit_status)


def _predict_readable(
    subject: "cs.Run | cs.Module", images: list[str], data_dir: Path | None
) -> tuple[list["cs.Prediction"], list["cs.ImageError"]]:
    """The predictions for the images that can be read, and why the others cannot; raises if none can."""
    predictions, unreadable = list["cs.Prediction"](), list["cs.ImageError"]()
    for image in images:
        try:
            predictions += cs.predict(subject, image, data_dir=data_dir)
        except cs.ImageError as error:
            unreadable.append(error)
    if not predictions:
        raise unreadable[0]
    return predictions, unreadable


def _show_predictions(predictions: list["cs.Prediction"], top: int) -> None:
    shared = [note for note in predictions[0].notes if all(note in p.notes for p in predictions[1:])]
    for note in shared:
        remark(f"note: {note}")
    for prediction in predictions:
        _show_prediction(prediction, top, without=shared)
    own_pictures = [p for p in predictions if p.label is None and p.probabilities is not None]
    if own_pictures:
        remark(f"note: {_CLOSED.format(len(own_pictures[0].classes))}")


_CLOSED = "the probabilities cover only {} classes; a picture of anything else is assigned one of them, too"


def _show_prediction(prediction: "cs.Prediction", top: int, without: Sequence[str] = ()) -> None:
    head, *scores = prediction.lines(top)
    say(head)
    for note in prediction.notes:
        if note not in without:
            remark(f"note: {prediction.image}: {note}")
    for line in scores:
        say(line)


COMMANDS: Commands = {"train": in_many(train), "evaluate": in_many(evaluate), "predict": predict}
