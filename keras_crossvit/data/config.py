"""The settings of the input pipeline."""

import dataclasses

from keras_crossvit.common.checks import (
    check_between,
    check_bool,
    check_not_negative,
    check_not_negative_int,
    check_positive_int,
    check_rate,
    make_plain,
    plain,
)
from keras_crossvit.common.registry import Registry

AUGMENTATIONS = Registry("augmentation")
"""`{name: function}`; the function takes an `InputConfig` and returns an `Augmentation`."""

register_augmentation = AUGMENTATIONS.register


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Everything that decides which batches a split yields.

    `InputConfig(batch_size=32)` has the augmentation of the paper's main results (section 4.1).

    Args:
        batch_size: Images per step, over all replicas together.
        epochs: Passes over the training split, each in its own order; the batches end after the
            last.
        seed: Seed of the data order and the augmentation, at least 0.
        augment: "reference" (rand-m9-mstd0.5-inc1 and batch-mode mixing, which the published
            weights were trained with), "kerascv" (KerasCV's own layers), "none" (only the crop
            and the flip, whatever the strengths of the other steps), or a name given to
            `register_augmentation`.
        exif_orientation: Whether images are turned upright according to their EXIF, in both
            training and evaluation. `False` leaves them as stored, as timm does.
        crop_area: Lowest and highest share of an image's area in a random training crop.
        horizontal_flip: Whether half of the training images are mirrored.
        translation: Largest shift of a training image, as a share of its sides, in [0, 1);
            used by "kerascv", and refused by "reference".
        rotation: Largest rotation of a training image in either direction, in degrees, at least
            0; likewise. Areas that shift and rotation uncover are black.
        randaugment_magnitude: Strength of RandAugment, in [0, 10]; 0 for none.
        randaugment_num_ops: RandAugment operations per image, at least 0.
        randaugment_std: Standard deviation of the strength, at least 0; with "kerascv" up to 10.
        mixup_alpha: Parameter of MixUp, at least 0; 0 for none.
        cutmix_alpha: Parameter of CutMix, at least 0; 0 for none. With both, each is used for
            half of the batches.
        mixing_batch_size: Images that are mixed in the same way, with each other; must divide
            `batch_size`. `None` for the whole batch.
        erasing_probability: Probability that a part of an image is erased, in [0, 1].
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        repeated_augmentation: Consecutive copies of an image, each augmented anew, at least 1;
            an epoch keeps its number of steps.
        parallel_calls: Calls that prepare images at the same time, and for every four of them
            one that mixes a batch, at least two; `None` for one per core. Each has up to six
            chunks of 32 images under way: some 150 MB at 240 x 240, so 9 GB on 64 cores.

    Raises:
        ValueError: If a value is outside its range.
    """

    batch_size: int
    epochs: int = 1
    seed: int = 0
    augment: str = "reference"
    exif_orientation: bool = True
    crop_area: tuple[float, float] = (0.08, 1.0)
    horizontal_flip: bool = True
    translation: float = 0.0
    rotation: float = 0.0
    randaugment_magnitude: float = 9.0
    randaugment_num_ops: int = 2
    randaugment_std: float = 0.5
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    mixing_batch_size: int | None = None
    erasing_probability: float = 0.25
    label_smoothing: float = 0.1
    repeated_augmentation: int = 1
    parallel_calls: int | None = None

    def __post_init__(self) -> None:
        make_plain(self)
        AUGMENTATIONS.check("augment", self.augment)
        for name in ("exif_orientation", "horizontal_flip"):
            check_bool(name, getattr(self, name))
        for name in ("batch_size", "epochs", "repeated_augmentation"):
            check_positive_int(name, getattr(self, name))
        for name in ("mixing_batch_size", "parallel_calls"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        check_not_negative_int("randaugment_num_ops", self.randaugment_num_ops)
        if check_not_negative_int("seed", self.seed) >= 2**32:  # as NumPy's generators take it
            raise ValueError(f"`seed` must be less than 2**32. Received: seed={self.seed}")
        for name in ("translation", "label_smoothing"):
            check_rate(name, getattr(self, name))
        for name in ("rotation", "randaugment_std", "mixup_alpha", "cutmix_alpha"):
            check_not_negative(name, getattr(self, name))
        check_between("randaugment_magnitude", self.randaugment_magnitude, 0, 10)
        check_between("erasing_probability", self.erasing_probability, 0, 1)
        if isinstance(self.crop_area, (tuple, list)):  # JSON gives a list
            object.__setattr__(self, "crop_area", tuple(map(plain, self.crop_area)))
        if not _is_area(self.crop_area):
            raise ValueError(
                "`crop_area` must be two shares with 0 < lowest <= highest <= 1. "
                f"Received: crop_area={self.crop_area!r}"
            )


def _is_area(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    numbers = all(type(share) in (int, float) for share in value)
    return numbers and 0 < value[0] <= value[1] <= 1
