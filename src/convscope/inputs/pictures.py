"""Pictures: from a file, a data set's image or an array to what a model takes, saying what was done to it.

Uses data sets, pictures and cards; a model is any object here, asked by its card and layers. No torch.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convscope.cards.card import Card, expected_input, input_layers
from convscope.cards.card_inference import at_size, card_of, vector_length
from convscope.data.catalog import DATASETS, PLACES, load_dataset
from convscope.data.dataset import NUMBER, Dataset
from convscope.data.lazy_images import LazyImages
from convscope.errors import ImageError, ShapeError, UnknownName, UsageError
from convscope.images import WHITE, pixels, read_image
from convscope.inputs.arrays import as_it_is, read_array, side_by_side, taken
from convscope.preprocess import Preprocess
from convscope.type_checks import kind_of, takes
from convscope.typing import Array

SPLITS = ("train", "test", "all")
PREPARES = "load_image(..., like=model) prepares it"
FAINT = "its brightest pixel is 1 of 255; for values that are ready, give float32 instead of uint8"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image as a model takes it, and as a person sees it."""

    name: str
    """Where it comes from: a file's name, `mnist:test/7`, or "array"."""
    array: Array = field(repr=False)
    """What the model takes: float32, shape (C, H, W), scaled and normalized; of other inputs the array as it is."""
    picture: NDArray[np.float32] = field(repr=False)
    """The pixels from 0 to 1, before mean and standard deviation: shape (C, H, W); read-only."""
    label: int | None = None
    """The true class as the model numbers it, where the image is one of a data set whose class it knows."""
    notes: tuple[str, ...] = ()
    """What was done to it, in words: resized, turned to grey, inverted."""

    def __post_init__(self) -> None:
        for name in ("array", "picture"):
            values = getattr(self, name)
            kind = np.float32 if values.dtype.kind == "f" else values.dtype
            view = np.array(values, kind, order="C", copy=None).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)


@takes()
def load_image(source: object, like: object = None, *, data_dir: str | Path | None = None) -> NDArray[np.float32]:
    """Load one image, prepared as a model or data set expects it.

    >>> load_image("crosses:damaged-plus")
    array([[[0., 1., 0.],
            [1., 1., 0.],
            [0., 1., 0.]]], dtype=float32)

    Args:
        source: One of

            - a file: `dog.jpg`;
            - an image of a data set: `mnist:test/7`, `crosses:damaged-plus`, `folder:PATH:test/7`. Without a split,
              a number counts in train, as in `load_dataset`, and a name is looked for in all;
            - an integer array of uint8: pixels from 0 to 255, shape (C, H, W) or (H, W);
            - a floating-point array: already prepared, taken as it is, only its shape is checked;
            - a Pillow image;
            - a file of an array, `.npy`: as that array, of any number of channels.

            For a model of signals, volumes or integers an array has the shape that it takes.
        like: A model, Card, Dataset or Preprocess that says what is expected. None keeps the picture's size and
            channels and scales pixels to 0..1; a data set's image is then as `Dataset.image` gives it.
        data_dir: Where the files of the MNIST family are looked for first.

    Returns:
        float32, shape (C, H, W); read-only. For a model of other inputs the array as it is, integers as int64.

    Raises:
        ImageError: no such file, or no image.
        UsageError: no such data set, split or image.
        ShapeError: an array of a shape, type or number of channels that is not expected.
    """
    return prepare(source, like, data_dir=data_dir).array


@takes()
def prepare(
    source: object, like: object = None, *, data_dir: str | Path | None = None, loose: bool = False
) -> Prepared:
    """Load one image as `load_image` does, with its picture, its label and what was done to it.

    >>> prepare("shapes:test/3", like=Preprocess(size=(14, 14))).notes
    ('resized from 28x28 to 14x14',)

    Args:
        source: As of `load_image`.
        like: As of `load_image`.
        data_dir: As of `load_image`.
        loose: Whether it is one of several inputs, of which arrays may have any shape and type.
    """
    card = None if like is None else card_for(like)
    expected = None if card is None else card.preprocess
    name = "array"
    if hasattr(source, "detach") and hasattr(source, "layout"):
        source = _numbers_of(source)
    if isinstance(source, Image.Image):
        return _from_pixels("picture", pixels(source, alpha=_alpha(expected)), expected or Preprocess(), like)
    if isinstance(source, str | Path) and str(source).endswith(".npy") and Path(source).expanduser().exists():
        name, source = Path(source).name, read_array(Path(source).expanduser())
    if isinstance(source, str | Path):
        return _from_name(str(source), expected, data_dir, like, () if card is None else card.classes)
    array = _array_of(source)
    vector = array.ndim == 1 and array.dtype.kind == "f" and like is not None and vector_length(like) == array.size
    if loose or vector or (card is not None and card.form != "picture"):
        ready, ready_notes = as_it_is(array[np.newaxis] if vector else array, card, loose=loose or vector)
        return Prepared(
            name, ready, side_by_side([ready]), notes=ready_notes if name != "array" or array.dtype == np.uint8 else ()
        )
    given = (name, array.shape)
    if array.ndim == 4 and len(array) == 1:  # a batch of one
        array = array[0]
    if array.dtype == np.uint8:
        prepared = _from_pixels(name, _image_shaped(array, expected, given), expected or Preprocess(), like)
        return prepared if array.max(initial=0) != 1 else replace(prepared, notes=(*prepared.notes, FAINT))
    ready = _image_shaped(array, expected, given)
    check_input(like, ready)
    ready = ready.astype(np.float32)
    notes = () if name == "array" else (taken(array),)
    return Prepared(name, ready, (expected or Preprocess()).restore(ready), notes=notes)


def _numbers_of(tensor: Any) -> Array:
    """The numbers of a tensor of PyTorch, on whatever device."""
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized or str(tensor.device) == "meta":
        raise UsageError(
            f"an image is a dense tensor of plain numbers, not one of layout {tensor.layout} and type {tensor.dtype} "
            f"on {tensor.device}; call .to_dense() or .dequantize()."
        )
    tensor = tensor.detach().cpu()
    result: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return result


def _array_of(source: Any) -> Array:
    """An array, or a list of numbers, as an array."""
    try:
        return np.asarray(source)
    except Exception:  # rows of different lengths, or whatever the conversion of some object raises
        raise UsageError(f"an image is a file, a picture or an array of numbers, not {kind_of(source)}.") from None


def _alpha(expected: Preprocess | None) -> bool:
    """Whether a picture keeps its transparency: a model of four channels takes it."""
    return expected is not None and expected.channels == 4


def check_input(like: object, array: Array, remedy: str = PREPARES) -> None:
    """Reject an array that does not fit a model, before the model fails on it.

    What only a forward pass can tell is let through: another size than the card says, unless the card knows it as
    the only one.

    >>> check_input(Card("net", Preprocess(size=(28, 28), channels=1), fixed_size=True), np.zeros((3, 28, 28), "f"))
    Traceback (most recent call last):
    convscope.errors.ShapeError: the image is 3x28x28, but net takes 1x28x28; load_image(..., like=model) prepares it.

    Args:
        like: A model, or anything else that `load_image` takes.
        array: The image, shape (C, H, W), floating-point.
        remedy: What to do where its channels or size do not fit.

    Raises:
        ShapeError: it is no (C, H, W), holds integers, or has channels or a size that the model does not take.
    """
    if array.dtype.kind != "f":
        raise ShapeError(
            f"the image holds {array.dtype}, and a model takes floating-point numbers; for pixels from 0 to 255, give "
            "uint8 to load_image(array, like=model), or scale them: array.astype('float32') / 255."
        )
    if array.ndim != 3 or 0 in array.shape:
        batch = "; give one image of the batch, such as array[0]" if array.ndim == 4 else ""
        raise ShapeError(f"an image has the shape (C, H, W), not {array.shape}{batch}.")
    if like is None:
        return
    card = card_for(like)
    layers = input_layers(like)
    expected, shape = card.preprocess, array.shape
    if card.fixed_size:
        fits = shape[0] == expected.channels and shape[1:] == expected.size
    elif layers and layers[0].kind == "numbers":
        fits = any(array.size % layer.count == 0 for layer in layers)
    else:
        channel_counts = {expected.channels, *(layer.count for layer in layers)} - {None}
        # a pixel unshuffle by f before the first convolution makes C * f * f channels
        fits = not channel_counts or bool(channel_counts & {shape[0] * factor**2 for factor in range(1, 9)})
    if not fits:
        raise ShapeError(f"the image is {'x'.join(map(str, shape))}, but {expected_input(card, layers)}; {remedy}.")


def card_for(like: object) -> Card:
    """The card of a model, or what a Card, Preprocess or Dataset says is expected."""
    if isinstance(like, Card):
        return like
    if isinstance(like, Preprocess):
        return Card("this preprocess", like)
    if isinstance(like, Dataset):
        channels, height, width = like.shape
        return Card(like.name, replace(like.preprocess, size=(height, width), channels=channels), like.classes)
    return card_of(like)


def _from_pixels(name: str, image: Array, expected: Preprocess, like: object, white: float = WHITE) -> Prepared:
    expected = _at_size(like, expected, image)
    picture = replace(expected, scale=1.0, mean=(0.0,), std=(1.0,)).apply(image, white)
    array = replace(expected, scale=1.0).normalize(picture)
    return Prepared(name, array, picture, notes=expected.changes(image, white))


def _at_size(like: object, expected: Preprocess, image: Array) -> Preprocess:
    """The preprocessing for this picture; it keeps its own size if the model accepts that and no size was requested."""
    if expected.size is None or image.ndim != 3 or not hasattr(like, "named_modules"):
        return expected
    height, width = image.shape[1:]
    return replace(expected, size=at_size(like, card_for(like), (height, width)).size)


def _from_name(
    source: str, expected: Preprocess | None, data_dir: str | Path | None, like: object, model_classes: tuple[str, ...]
) -> Prepared:
    path = Path(source).expanduser()
    if path.exists():
        return _from_pixels(path.name, read_image(path, alpha=_alpha(expected)), expected or Preprocess(), like)
    if "://" in source:
        raise UsageError(f"{source} is an address, and nothing is downloaded; save the picture and name its file.")
    name, colon, image = source.rpartition(":")
    if source in DATASETS or name in PLACES:
        raise UsageError(f"{source} is a whole data set; name one of its images: {source}:test/0.")
    if colon and (name in DATASETS or name.partition(":")[0] in PLACES):
        data, index = _find(name, image, data_dir, expected)
        result = _from_dataset(data, index, expected, like)
        return replace(result, label=_model_class(int(data.labels[index]), data.classes, model_classes))
    if colon and not {"/", "."} & set(name) and not image.startswith("\\"):  # the start of C:\photo.jpg
        raise UnknownName("data set", name, DATASETS, "An image is a file, mnist:test/7 or crosses:damaged-plus.")
    raise ImageError(f"there is no file {source}; check the path, or name a data set's image, such as mnist:test/7.")


def _find(name: str, image: str, data_dir: str | Path | None, expected: Preprocess | None) -> tuple[Dataset, int]:
    """A data set's split and the index in it: `test/7`, `test/NAME`, `7` (of train) or `NAME` (of all)."""
    size = (
        expected.size if expected is not None and name.startswith(("folder:", "hub:")) else None
    )  # its images may differ
    head, slash, image_name = image.partition("/")
    if slash and head in SPLITS:
        data = load_dataset(name, split=head, data_dir=data_dir, image_size=size)
        return data, data.index(image if image in data.names else image_name)
    if slash and name in DATASETS:  # only a folder's images have names with a slash
        raise UnknownName("split", head, SPLITS, f"An image is {name}:test/0.")
    split = "train" if NUMBER.fullmatch(image) else "all"
    data = load_dataset(name, split=split, data_dir=data_dir, image_size=size)
    return data, data.index(image)


def _from_dataset(data: Dataset, index: int, expected: Preprocess | None, like: object) -> Prepared:
    """An image of a data set: as `data.image` gives it where that is what is expected."""
    name = f"{data.name}:{data.names[index]}" if data.names else f"{data.name}:{data.split}/{index}"
    label = int(data.labels[index])
    if expected is None:
        return Prepared(name, data.image(index), data.picture(index), label)
    raw = _original(data, index)
    if expected == data.preprocess:
        return Prepared(name, data.image(index), data.picture(index), label, _resized(expected, raw))
    if expected.background == data.preprocess.background:
        expected = replace(expected, background=None)
    return replace(_from_pixels(name, raw, expected, like, data.preprocess.scale), label=label)


def _original(data: Dataset, index: int) -> Array:
    """The pixels of an image as its file has them, before all were brought to one size."""
    if isinstance(data.images, LazyImages):
        return data.images.original(index)
    return read_image(Path(data.source, data.names[index])) if data.name.startswith("folder:") else data.images[index]


def _resized(expected: Preprocess, raw: Array) -> tuple[str, ...]:
    """What loading a data set of what is expected did to an image."""
    return replace(expected, background=None, binary=False).changes(raw)


def _model_class(label: int, classes: tuple[str, ...], model_classes: tuple[str, ...]) -> int | None:
    """The index of a data set's class among a model's classes; None if the model lacks the class.

    >>> _model_class(0, ("circle", "square"), ("square", "circle"))
    1
    >>> _model_class(3, ("0", "1", "2", "3"), ("square", "circle")) is None
    True
    """
    if not model_classes or model_classes == classes:
        return label
    if classes[label] in model_classes:
        return model_classes.index(classes[label])
    # other names altogether
    return label if len(model_classes) == len(classes) and not {*model_classes} & {*classes} else None


def prepare_batch(source: str, like: object = None, *, data_dir: str | Path | None = None) -> list[Prepared]:
    """Several images of a data set, `shapes:train/0-63`, each prepared as `prepare` does, with its label.

    >>> [image.name for image in prepare_batch("shapes:test/3-4")]
    ['shapes:test/3', 'shapes:test/4']

    Raises:
        UsageError: no such data set, split or images, or not written so.
    """
    match = BATCH.fullmatch(source)
    if match is None:
        raise UsageError(f"a batch is written DATASET:SPLIT/FIRST-LAST, such as shapes:train/0-63, not {source!r}.")
    name, split, first, last = match["name"], match["split"], int(match["first"]), int(match["last"])
    if last < first:
        raise UsageError(f"a batch goes from its first image to its last, and {source} goes from {first} to {last}.")
    card = None if like is None else card_for(like)
    expected, model_classes = (None, ()) if card is None else (card.preprocess, card.classes)
    data, _ = _find(name, f"{split}/{first}", data_dir, expected)
    if last >= len(data):
        raise UsageError(f"{name}:{split} has images 0 to {len(data) - 1}, not up to {last}.")
    images = [_from_dataset(data, index, expected, like) for index in range(first, last + 1)]
    return [replace(image, label=_model_class(int(image.label or 0), data.classes, model_classes)) for image in images]


BATCH = re.compile(r"(?P<name>.+):(?P<split>train|test|all)/(?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})")
"""How a batch is written."""


def _image_shaped(array: Array, expected: Preprocess | None, given: tuple[str, tuple[int, ...]]) -> Array:
    """(H, W) as (1, H, W); refuses what has its channels last, by the name and shape that it was given with."""
    channel_counts = {1, 3} if expected is None or expected.channels is None else {expected.channels}
    last = {1, 3, 4} if expected is None or expected.channels is None else {expected.channels, 1, 3, 4}
    if array.ndim == 3 and array.shape[0] not in channel_counts | {1, 3} and array.shape[2] in last:
        name, shape = given
        subject = "" if name == "array" else f" of {name}"
        batch, axes = ("N, ", "0, 3, 1, 2") if len(shape) == 4 else ("", "2, 0, 1")
        raise ShapeError(
            f"an image has the shape ({batch}C, H, W), and {shape}{subject} looks like ({batch}H, W, C); "
            f"give array.transpose({axes})."
        )
    return array[None] if array.ndim == 2 else array


@takes()
def random_image(like: object, *, seed: int = 0) -> NDArray[np.float32]:
    """An image of noise in the shape that a model expects, to trace without a picture.

    >>> random_image(Card("net", Preprocess(size=(28, 28), channels=1))).shape
    (1, 28, 28)

    Args:
        like: A model, Card, Dataset or Preprocess.
        seed: Of the noise.

    Returns:
        float32, shape (C, H, W), prepared; 64x64 where the model says no size, three channels where it says none. For
        a model of signals (C, 64), of volumes (C, 16, 16, 16).

    Raises:
        UsageError: nothing says what shape the model takes.
    """
    card = card_for(like)
    expected, rng = card.preprocess, np.random.default_rng(int(seed))
    if card.form in {"tokens", "any"}:
        accepted = "integers" if card.form == "tokens" else "arrays of an unknown shape"
        raise UsageError(f"{card.name} takes {accepted}; give it an input, such as a file of an array (.npy).")
    if card.form != "picture":
        edges = (64,) if card.form == "signal" else (16, 16, 16)
        return rng.random((expected.channels or 3, *edges), np.float32)
    shape = (expected.channels or 3, *(expected.size or (64, 64)))
    return replace(expected, scale=1.0).normalize(rng.random(shape, np.float32))
