"""The MNIST family as published: file names, checksums, servers, classes. A table; `mnist` loads by it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """One IDX file, as it was published."""

    name: str
    sha256: str
    """SHA-256 of the uncompressed bytes."""
    packed: bool = False
    """The digest is of the published .gz file instead, since only that one is known."""


@dataclass(frozen=True, slots=True)
class Family:
    """The four files of one data set, its classes and its servers."""

    title: str
    classes: tuple[str, ...]
    source: str
    mirrors: tuple[str, ...]
    files: Mapping[str, tuple[File, File]]
    """Split -> images and labels."""


# The checksums of MNIST were computed from its original files, those of Fashion-MNIST's labels, and of all files of
# Kuzushiji-MNIST but one, from files whose published checksums (torchvision's) agree. Those of Fashion-MNIST's images
# are published by several projects independently, and so is that of Kuzushiji-MNIST's packed training images.
FAMILIES: Mapping[str, Family] = {
    "mnist": Family(
        title="handwritten digits",
        classes=tuple("0123456789"),
        source="LeCun, Cortes, Burges: the MNIST database, http://yann.lecun.com/exdb/mnist/",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files={
            "train": (
                File("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
                File("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
                File("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
            ),
        },
    ),
    "fashion-mnist": Family(
        title="articles of clothing",
        classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        source="Xiao, Rasul, Vollgraf 2017, https://github.com/zalandoresearch/fashion-mnist",
        mirrors=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        files={
            "train": (
                File("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
                File("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
                File("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
            ),
        },
    ),
    "kmnist": Family(
        title="cursive Japanese characters",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        source="Clanuwat et al. 2018, https://github.com/rois-codh/kmnist (CC BY-SA 4.0)",
        mirrors=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "https://huggingface.co/datasets/tanganke/kmnist/resolve/756d43e894032ce8838db8b32e7500c9c3b5d050/raw/",
        ),
        files={
            "train": (
                File(
                    "train-images-idx3-ubyte",
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                    packed=True,
                ),
                File("train-labels-idx1-ubyte", "2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte", "76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e"),
                File("t10k-labels-idx1-ubyte", "a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6"),
            ),
        },
    ),
}  # fmt: skip
