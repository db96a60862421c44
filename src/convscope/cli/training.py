"""The commands train, evaluate and predict."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.consent import Trust, with_consent
from convscope.cli.console import duration, hushed, reading_progress, remark, say, show_json, show_table
from convscope.cli.model_options import Loading, is_run
from convscope.cli.shared_options import DataDir, Grey, Json, ModelArgs, Size, Strict, parse_size, spread
from convscope.cli.training_progress import training_progress
from convscope.render.numbers import decimal, percent


def train(
    dataset: Annotated[
        str | None, typer.Argument(help="shapes, mnist, folder:PATH, ... (see `convscope datasets`)")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A built-in model, file.py:Class or package.module:factory.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="fast (default), or tutorial for the published settings.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; the peak, if the schedule varies it.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw, sgd, adadelta, rmsprop, ...")] = None,
    loss: Annotated[str | None, typer.Option(help="cross-entropy, mse or nll.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Learning rate schedule: constant or one-cycle.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of generated data, initial weights and order.")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1, mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 (default), bfloat16 or float64.")] = None,
    engine: Annotated[str | None, typer.Option(help="Compute engine: torch (default) or numpy.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; by default runs/MODEL.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out, or the newest unfinished one; start a new one if --out is empty.",
        ),
    ] = False,
    images: Annotated[int | None, typer.Option(help="Number of images to generate (shapes, color-shapes).")] = None,
    data_dir: DataDir = None,
    size: Size = None,
    grey: Grey = False,
    strict: Strict = False,
    model_arg: ModelArgs = None,
    trust: Trust = False,
) -> None:
    """Train a network and write a run folder: `convscope train shapes`."""
    options: dict[str, Any] = {
        "size": images,
        "data_dir": data_dir,
        "image_size": parse_size(size),
        "grey": grey,
        "strict": strict,
    }

    def begin(trusted: bool) -> tuple[Any, Any]:
        with reading_progress() as progress, training_progress() as watcher:
            run = cs.train(
                dataset,
                model,
                recipe=recipe,
                epochs=epochs,
                batch_size=batch_size,
                lr=lr,
                optimizer=optimizer,
                loss=loss,
                schedule=schedule,
                seed=seed,
                device=device,
                precision=precision,
                engine=engine,
                out=out,
                resume=resume,
                model_args=cs.parse_model_args(model_arg or []),
                data_options={key: value for key, value in options.items() if value},
                watch=watcher.tell,
                progress=progress,
                trust=trusted,
            )
        return run, watcher

    run, watcher = with_consent(begin, trust=trust)
    if hushed():  # another process prints, and the run may exist only on its disk
        return
    if not watcher.start:
        more = " Train longer with --epochs." if run.recipe.schedule == "constant" else ""
        say(f"{run.path} is already finished; nothing is left to train.{more}")
        return
    say(f"{run.path} was written after {duration(run.metrics['seconds'])} of training")
    say(f"next: convscope evaluate {shlex.quote(str(run.path))}")


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
    total = int(result.confusion.sum())
    skipped = f"; {result.skipped:,} more cannot be read" if result.skipped else ""
    say(f"{result.dataset}: {percent(result.accuracy)} of {total:,} images right, loss {decimal(result.loss)}{skipped}")
    say()
    rows = [(c["class"], f"{c['images']:,}", percent(c["recall"]), percent(c["precision"])) for c in result.per_class]
    show_table(["class", "images", "recall", "precision"], rows, right=["images", "recall", "precision"])
    say()
    say("confusion matrix: true class (rows), predicted class (columns)")
    counts = [[name, *(f"{n:,}" for n in line)] for name, line in zip(result.classes, result.confusion, strict=True)]
    show_table(["", *result.classes], counts, right=result.classes)


def scores(run: str, trust: bool, dataset: str | None, **options: Any) -> Any:
    """The result of `cs.evaluate` for a run, once its code is trusted."""

    def measure(trusted: bool) -> Any:
        if trusted:
            cs.load_model(Path(run), trust=True)
        return cs.evaluate(run, dataset, **options)

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
    subject = loading.load(run)
    if is_run(run) and not loading.given:
        subject = cs.load_run(run)  # a run knows where its data is
    predictions = cs.predict(subject, *images, data_dir=data_dir)
    if as_json:
        show_json([prediction.to_json() for prediction in predictions])
        return
    for prediction in predictions:
        _show_prediction(prediction, top)


def _show_prediction(prediction: Any, top: int) -> None:
    name = prediction.classes[prediction.best]
    truth = "" if prediction.label is None else f" (it is {prediction.classes[prediction.label]})"
    say(f"{prediction.image}: {name}{truth}")
    for note in prediction.notes:
        remark(f"note: {prediction.image}: {note}")
    if prediction.probabilities is None:
        say(f"  {decimal(prediction.output[0])}, nearest to class number {prediction.best}")
        return
    order = prediction.probabilities.argsort()[::-1][:top]
    width = max(len(prediction.classes[k]) for k in order)
    for k in order:
        say(f"  {prediction.classes[k]:<{width}}  {percent(float(prediction.probabilities[k])):>8}")
