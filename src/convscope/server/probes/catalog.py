"""Questions: what can be asked of models and data, what each question needs, and how it is asked of `cs.probe`.

Knows `cs.probe`, `cs.plot` and subjects that are ready; no requests under way, no threads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import convscope as cs
from convscope.server import schema
from convscope.server.session.inputs import Taken

Progress = Callable[[str, int, int], None]
CHANNELS = 8
"""Of which patches are shown by default."""
PATCHES = 50_000_000
"""Numbers of all patches of an answer."""


@dataclass(frozen=True, eq=False)
class ProbeSubject:
    """What a question is asked of: models of its own, data, an image."""

    request: schema.ProbeRequest
    names: Sequence[str]
    """What each model is called."""
    models: Sequence[Any] = field(repr=False)
    """Copies that nobody else uses."""
    run: cs.Run | None = None
    """Where the first model comes from."""
    taken: Taken | None = None
    split: Callable[[str], cs.Dataset | None] = lambda _: None
    """The images of a split of the data, as many as are asked for; None where it has none."""
    runs: Sequence[cs.Run] = ()
    """Every run that is open, of trainings on the colour shapes."""

    @property
    def data(self) -> Any:
        """The images."""
        return self.split(self.request.split or "test")

    def traced(self, progress: Progress) -> cs.Trace:
        """The pass of the image through the first model."""
        assert self.taken is not None
        return cs.trace(self.models[0], self.taken.value, progress=progress)


Ask = Callable[[ProbeSubject, Progress], Any]


@dataclass(frozen=True)
class ProbeQuestion:
    """One question."""

    asks: str
    says: str
    needs: tuple[schema.Need, ...]
    ask: Ask
    misleads: str
    """From the question's page in docs/probes, word for word."""
    split: schema.Split | None = None
    images: int | None = None
    most: int | None = None

    def info(self, name: schema.QuestionName) -> schema.QuestionInfo:
        """What the page is told of it."""
        return schema.QuestionInfo(
            name=name,
            asks=self.asks,
            says=self.says,
            needs=list(self.needs),
            split=self.split,
            images=self.images,
            most=self.most,
            misleads=self.misleads,
        )


def _receptive_field(subject: ProbeSubject, progress: Progress) -> Any:
    request, trace = subject.request, subject.traced(progress)
    if request.step is None:
        return cs.probe.receptive_fields(trace, progress=progress)
    cell = None if request.cell is None else tuple(request.cell)
    return cs.probe.receptive_field(trace, request.step, cell)


def _shift(subject: ProbeSubject, progress: Progress) -> Any:
    named = dict(zip(subject.names, subject.models, strict=True))
    request = subject.request
    return cs.probe.shift(
        named, subject.data, kind=request.kind or "translation", reach=request.reach or 10, progress=progress
    )


def _compare(subject: ProbeSubject, progress: Progress) -> Any:
    return cs.probe.compare(subject.models, subject.data, names=subject.names, progress=progress)


def _dead(subject: ProbeSubject, progress: Progress) -> Any:
    steps = [] if subject.request.step is None else [subject.request.step]
    return cs.probe.dead(subject.models[0], subject.data, steps, progress=progress)


def _shortcut(subject: ProbeSubject, progress: Progress) -> Any:
    train, test = subject.split("train"), subject.split("test")
    if train is None:
        raise cs.UsageError("these data have no training images to fit a rule on; choose others.")
    return cs.probe.shortcut(train, test, progress=progress)


def _lint(subject: ProbeSubject, progress: Progress) -> Any:
    model: Any = subject.models[0]
    if subject.run is not None:  # it says what it was trained by
        model = subject.run.holding(model)
    train, test = subject.split("train"), subject.split("test")
    count = subject.request.images or 256
    return cs.probe.lint(model, train, test=test, images=count, progress=progress)


def _patches(subject: ProbeSubject, progress: Progress) -> Any:
    data, channels = subject.data, subject.request.channels or CHANNELS
    if channels * prod(data.shape) * 12 > PATCHES:
        most = max(1, PATCHES // (12 * prod(data.shape)))
        raise cs.UsageError(f"patches of {channels} channels of images this large are too many; ask for {most}.")
    return cs.probe.patches(subject.models[0], data, subject.request.step, channels=channels, progress=progress)


def _attribution(subject: ProbeSubject, progress: Progress) -> Any:
    model, taken = subject.models[0], subject.taken
    assert taken is not None
    image = replace(cs.prepare(taken.array, like=model), name=taken.name, picture=taken.picture)
    return cs.probe.attribution(model, image, subject.request.output, progress=progress)


def _borders(subject: ProbeSubject, progress: Progress) -> Any:
    return cs.probe.borders(subject.runs, progress=progress)


QUESTIONS: Mapping[schema.QuestionName, ProbeQuestion] = {
    "receptive-field": ProbeQuestion(
        "Which pixels can this number depend on?",
        "The exact set of pixels, followed back through every step.",
        ("model", "input", "step", "cell"),
        _receptive_field,
        "It says what a number can depend on, not what it does. A trained network often weighs the middle of the field "
        "far more than its edge.",
    ),
    "shift": ProbeQuestion(
        "Does the answer stay when the picture moves?",
        "Right answers over pictures that are moved, turned, scaled, made noisy or covered.",
        ("model", "other", "source", "split", "images", "kind", "reach"),
        _shift,
        "Images that stay whole when moved far are small ones near the middle, and these may be easier.",
        split="test",
        images=500,
        most=10_000,
    ),
    "compare": ProbeQuestion(
        "Which of two models is better, and where do they disagree?",
        "Cost, accuracy, disagreements, and how alike their layers are.",
        ("model", "other", "source", "split", "images"),
        _compare,
        "Two trainings of one architecture differ too. A difference between two runs is a difference between these "
        "runs; for the architectures, train several seeds of each.",
        split="test",
        images=10_000,
        most=60_000,
    ),
    "dead": ProbeQuestion(
        "Which units do nothing, or repeat another one?",
        "Dead, saturated and duplicate units of every activation.",
        ("model", "source", "split", "images", "step"),
        _dead,
        "Dead on these images is not dead on others. A unit for rare things looks dead on a data set without them.",
        split="train",
        images=10_000,
        most=60_000,
    ),
    "shortcut": ProbeQuestion(
        "How far does one trivial number solve these data?",
        "A rule fitted to area, mean, position and the like, scored on test images. No network is asked.",
        ("source",),
        _shortcut,
        "A high score says that a network can score so by this number, not that it does.",
    ),
    "lint": ProbeQuestion(
        "Which mistakes does this model, or its training, contain?",
        "Seen while it runs: softmax before cross-entropy, dead layers, test images in training and more.",
        ("model", "source", "images"),
        _lint,
        "Silence means that none of these mistakes was seen on these images. It is no proof that there is none.",
        images=256,
        most=2_048,
    ),
    "patches": ProbeQuestion(
        "Which parts of images excite a channel most?",
        "The patches with the largest and the smallest number of each channel, cut by exact receptive field.",
        ("model", "source", "split", "images", "step", "channels"),
        _patches,
        "The most exciting patches are the tail of the distribution, not its middle. A channel whose nine best patches "
        "show wheels may fire for a hundred other things a little less.",
        split="test",
        images=10_000,
        most=60_000,
    ),
    "attribution": ProbeQuestion(
        "Which pixels is this answer due to?",
        "Captum's methods beside the exact contributions, and where they differ.",
        ("model", "input", "output"),
        _attribution,
        "None of these maps is the reason. They answer different questions; a low correlation is a difference of "
        "questions before it is an error.",
    ),
    "borders": ProbeQuestion(
        "Do the borders of red objects vanish, in every training?",
        "Asked of all open trainings on the colour shapes: the more there are, the more the share says.",
        (),
        _borders,
        "It looks at the first convolution, before tanh and pooling; later layers may draw what it does not.",
    ),
}
"""Name, as of the command `convscope probe NAME` -> how it is asked."""
ABOUT: Mapping[schema.Need, tuple[str, ...]] = {
    "model": ("model", "at", "edits"),
    "other": ("other", "other_at"),
    "input": ("input", "change", "fit"),
}
"""What is needed -> the fields of a request that say it, where it is not the one of that name."""


def meant(request: schema.ProbeRequest) -> schema.ProbeRequest:
    """A request without what has no meaning for its question.

    >>> meant(schema.ProbeRequest(question="shortcut", source="shapes", step="conv1", reach=3)).reach is None
    True
    """
    needed = {name for need in QUESTIONS[request.question].needs for name in ABOUT.get(need, (need,))}
    return schema.ProbeRequest(**{name: getattr(request, name) for name in needed | {"question"}})
