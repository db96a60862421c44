"""Records: every question of `cs.probe` with its command, its settings, its defaults and its caveats, in one table.

Loads no torch: the functions are looked up in `convscope.probe` when a question is asked.
"""

from collections.abc import Mapping, Sequence
from math import prod

import convscope as cs
from convscope import probe
from convscope.errors import UsageError
from convscope.probe.support.probe_record import Argument, Field, Probe, Result, Setting, Settings, Subject
from convscope.progress import Progress

MODEL = Argument("model", "A run folder, a built-in model, file.py:Class or package.module:factory.")
DATASET = Argument("dataset", "shapes, mnist, folder:PATH, ...; a run is asked about its own data.", required=False)
CHANGES = ("translation", "rotation", "scale", "noise", "erase")
PATCH_CELLS = 50_000_000
"""Maximum size of all patches of an answer on the page, in numbers."""


def _channels_for(shape: tuple[int, ...]) -> int:
    """For how many channels the page may show patches: six of the most and six of the least exciting each."""
    return max(1, PATCH_CELLS // (12 * prod(shape)))


def _kernels(arguments: Sequence[str]) -> "dict[str, cs.filters.Filter] | None":
    """Kernels by title, from TITLE=NUMBERS."""
    pairs = [text.partition("=") for text in arguments]
    for text, (_, equals, _) in zip(arguments, pairs, strict=True):
        if not equals:
            raise UsageError(f"a kernel is given as TITLE=NUMBERS, such as 'vertical=-1 0 1; -1 0 1', not {text!r}.")
    return {title.strip(): cs.filters.parse_kernel(numbers) for title, _, numbers in pairs} or None


def _receptive_field(subject: Subject, settings: Settings, progress: Progress) -> Result:
    assert subject.trace is not None
    trace = subject.trace(progress)
    if settings.get("step") is None:
        return probe.receptive_fields(trace, progress=progress)
    return probe.receptive_field(trace, **settings, progress=progress)


def _shift(subject: Subject, settings: Settings, progress: Progress) -> Result:
    named = dict(zip(subject.names, subject.models, strict=True))
    return probe.shift(named, subject.data, **settings, progress=progress)


def _compare(subject: Subject, settings: Settings, progress: Progress) -> Result:
    return probe.compare(subject.models, subject.data, names=subject.names, **settings, progress=progress)


def _dead(subject: Subject, settings: Settings, progress: Progress) -> Result:
    return probe.dead(subject.model, subject.data, **settings, progress=progress)


def _shortcut(subject: Subject, settings: Settings, progress: Progress) -> Result:
    train, test = subject.split("train"), subject.split("test")
    if train is None:
        raise UsageError("these data have no training images to fit a rule on; choose others.")
    return probe.shortcut(train, test, **settings, progress=progress)


def _lint(subject: Subject, settings: Settings, progress: Progress) -> Result:
    model = subject.run or next(iter(subject.models), None)  # a run knows what it was trained by
    return probe.lint(model, subject.split("train"), test=subject.split("test"), **settings, progress=progress)


def _gradients(subject: Subject, settings: Settings, progress: Progress) -> Result:
    model = subject.model if subject.run is None else subject.run  # a run has the weights of its training's steps
    return probe.gradients(model, subject.split("train"), **settings, progress=progress)


def _patches(subject: Subject, settings: Settings, progress: Progress) -> Result:
    return probe.patches(subject.model, subject.data, **settings, progress=progress)


def _attribution(subject: Subject, settings: Settings, progress: Progress) -> Result:
    assert subject.image is not None
    return probe.attribution(subject.model, subject.image(), **settings, progress=progress)


RECEPTIVE_FIELD = Probe(
    name="receptive-field",
    question="Which pixels can this number depend on?",
    measures="The exact set of pixels, followed back through every step.",
    help="Which pixels a number can depend on: `convscope probe receptive-field shapes-cnn --at conv2:0,4,4`.",
    arguments=(MODEL, Argument("image", "A file, or dataset:split/index; else noise.", required=False)),
    settings=(
        Setting(
            "step",
            "STEP:CELL, such as conv2:3,10,12, or STEP for its middle; else all steps.",
            option="at",
            field=Field("step", "Step", "step", empty="every step"),
        ),
        Setting("cell", within="step", field=Field("cell", "Cell", "cell", empty="the middle", only=("step", None))),
    ),
    run=_receptive_field,
    result="probe.receptive_field.ReceptiveField",
    picture_needs=(
        "step",
        "a picture shows one field; name the step: --at conv2, or --at conv2:3,10,12 for one cell.",
    ),
    caveats="It says what a number can depend on, not what it does. A trained network often weighs the middle of the "
    "field far more than its edge.",
)
SHIFT = Probe(
    name="shift",
    question="Does the answer stay when the picture moves?",
    measures="Right answers over pictures that are moved, turned, scaled, made noisy or covered.",
    help="Does the answer stay when the picture moves? `convscope probe shift shapes runs/shapes-mlp runs/shapes-cnn`.",
    arguments=(
        Argument("dataset", "The images: shapes, mnist, folder:PATH, ..."),
        Argument("models", "Run folders, built-in models, file.py:Class; one or more."),
    ),
    settings=(
        Setting(
            "kind",
            "translation, rotation, scale, noise or erase.",
            default="translation",
            choices=CHANGES,
            field=Field("kind", "Change", "choice", default="translation"),
        ),
        Setting(
            "reach",
            "Of translations: pixels in each direction.",
            default=10,
            type=int,
            minimum=1,
            field=Field("reach", "Pixels, at most", "number", default=10, maximum=16, only=("kind", "translation")),
        ),
        Setting("seed", "Of generated data, and of the noise.", default=0, type=int),
    ),
    run=_shift,
    result="probe.support.robustness.Shift",
    split="test",
    images=500,
    most=10_000,
    caveats="Images that stay whole when moved far are small ones near the middle, and these may be easier.",
)
COMPARE = Probe(
    name="compare",
    question="Which of two models is better, and where do they disagree?",
    measures="Cost, accuracy, disagreements, and how alike their layers are.",
    help="Cost, accuracy, disagreements, similarity: `convscope probe compare runs/a runs/b`.",
    arguments=(
        Argument("models", "Two or more: runs, built-in models, file.py:Class.", least=2),
        Argument(
            "dataset",
            "shapes, mnist, folder:PATH, ...; by default the first run's own data.",
            required=False,
            option="on",
        ),
    ),
    settings=(
        Setting(
            "shown",
            "How many images are kept that the models disagree on.",
            default=24,
            type=int,
            minimum=0,
        ),
    ),
    run=_compare,
    result="probe.compare.Compare",
    split="test",
    images=10_000,
    most=60_000,
    caveats="Two trainings of one architecture differ too. A difference between two runs is a difference between these "
    "runs; for the architectures, train several seeds of each.",
)
DEAD = Probe(
    name="dead",
    question="Which units do nothing, or repeat another one?",
    measures="Dead, saturated and duplicate units of every activation.",
    help="Which units are dead, saturated or duplicates: `convscope probe dead runs/shapes-cnn`.",
    arguments=(MODEL, DATASET),
    settings=(
        Setting(
            "steps",
            "Only this step; repeatable. By default all activations.",
            default=(),
            several=True,
            option="step",
            field=Field("step", "Step", "step", empty="all activations"),
        ),
    ),
    run=_dead,
    result="probe.dead.Dead",
    split="train",
    images=10_000,
    most=60_000,
    caveats="Dead on these images is not dead on others. A unit for rare things looks dead on a data set without them.",
)
SHORTCUT = Probe(
    name="shortcut",
    question="How far does one trivial number solve these data?",
    measures="A rule fitted to area, mean, position and the like, scored on test images. No network is asked.",
    help="How far area, mean, position, ... alone solve a data set: `convscope probe shortcut shapes`.",
    arguments=(Argument("dataset", "shapes, mnist, folder:PATH, ... (see `convscope datasets`)"),),
    settings=(Setting("seed", "Of generated data and of what is held out.", default=0, type=int),),
    run=_shortcut,
    result="probe.shortcut.Shortcut",
    caveats="A high score says that a network can score so by this number, not that it does.",
)
LINT = Probe(
    name="lint",
    question="Which mistakes does this model, or its training, contain?",
    measures="Seen while it runs: softmax before cross-entropy, dead layers, test images in training and more.",
    help="Look for mistakes in a model and its training, by running it: `convscope probe lint runs/shapes-cnn`.\n\n"
    "Exit status 1 if one is found.",
    arguments=(
        Argument("model", "A run folder, a built-in model, file.py:Class.", required=False),
        Argument(
            "dataset", "What it is trained on: shapes, mnist, folder:PATH, ...; a run knows its own.", required=False
        ),
    ),
    settings=(
        Setting("loss", "cross-entropy, mse or nll; by default a run's own, else cross-entropy."),
        Setting(
            "kernels",
            "A kernel and its title: 'vertical=-1 0 1; -1 0 1'; repeatable.",
            several=True,
            option="kernel",
            metavar="TITLE=NUMBERS",
            parse=_kernels,
        ),
        Setting("images", "How many training images to run it on.", default=256, type=int, metavar="COUNT", minimum=2),
        Setting("seed", "Of generated data and of the images that are taken.", default=0, type=int),
    ),
    run=_lint,
    result="probe.linting.findings.Lint",
    images=256,
    most=2_048,
    fails=True,
    caveats="Silence means that none of these mistakes was seen on these images. "
    "It does not prove that there are none.",
)
PATCHES = Probe(
    name="patches",
    question="Which parts of images excite a channel most?",
    measures="The patches with the largest and the smallest number of each channel, cut by exact receptive field.",
    help="Which parts of images excite each channel: `convscope probe patches runs/shapes-cnn --step conv1`.",
    arguments=(MODEL, DATASET),
    settings=(
        Setting(
            "step",
            "A step of the trace; by default the last convolution.",
            field=Field("step", "Step", "step", empty="the last convolution"),
        ),
        Setting("count", "How many of the most and of the least exciting.", default=6, type=int, minimum=1),
        Setting(
            "channels",
            "How many channels, from the first on.",
            default=64,
            type=int,
            minimum=1,
            field=Field("channels", "Channels, the first", "number", default=8, maximum=64, most_for=_channels_for),
        ),
    ),
    run=_patches,
    result="probe.patches.Patches",
    split="test",
    images=10_000,
    most=60_000,
    caveats="The most exciting patches are the tail of the distribution, not its middle. A channel whose nine best "
    "patches show wheels may fire for a hundred other things a little less.",
)
ATTRIBUTION = Probe(
    name="attribution",
    question="Which pixels is this answer due to?",
    measures="Captum's methods beside the exact contributions, and where they differ.",
    help="Captum's methods beside exact contributions: `convscope probe attribution runs/mnist mnist:test/7`.",
    arguments=(
        MODEL,
        Argument("image", "A picture, an array (.npy), or dataset:split/index such as mnist:test/7."),
    ),
    settings=(
        Setting(
            "output",
            "A class by name or number; by default the one the model chooses.",
            option="class",
            field=Field("output", "Class", "class", empty="the model's answer"),
        ),
        Setting(
            "methods",
            "integrated-gradients, grad-cam, ...; repeatable. By default all.",
            default=(),
            several=True,
            option="method",
        ),
    ),
    run=_attribution,
    result="probe.attribution.Attribution",
    caveats="None of these maps is the reason. They answer different questions; a low correlation is a difference of "
    "questions before it is an error.",
)

GRADIENTS = Probe(
    name="gradients",
    question="How much of the gradient reaches the first layers?",
    measures="The norm of the loss's gradient at every layer, now and over a training: does it vanish or explode?",
    help="Does the gradient vanish on its way to the first layer? `convscope probe gradients runs/shapes-cnn`.",
    arguments=(
        MODEL,
        Argument(
            "dataset", "What it is trained on: shapes, mnist, folder:PATH, ...; a run knows its own.", required=False
        ),
    ),
    settings=(
        Setting("loss", "cross-entropy, mse or nll; by default a run's own, else cross-entropy."),
        Setting("images", "How many training images to run it on.", default=256, type=int, metavar="COUNT", minimum=1),
        Setting("batch", "Images in a batch.", default=64, type=int, metavar="COUNT", minimum=1),
        Setting(
            "points",
            "Of a run: at how many of its kept steps.",
            default=9,
            type=int,
            metavar="COUNT",
            minimum=1,
            field=Field("points", "Kept steps", "number", default=9, maximum=21),
        ),
        Setting("seed", "Of generated data, of the images that are taken and of dropout.", default=0, type=int),
    ),
    run=_gradients,
    result="probe.gradients.Gradients",
    images=256,
    most=2_048,
    caveats="A small gradient does not say that a layer learns slowly: Adam and RMSprop divide it by its own size.",
)

PROBES: Mapping[str, Probe] = {
    record.name: record
    for record in (RECEPTIVE_FIELD, SHIFT, COMPARE, DEAD, SHORTCUT, LINT, PATCHES, ATTRIBUTION, GRADIENTS)
}
"""Name, as in `convscope probe NAME` -> its record."""
