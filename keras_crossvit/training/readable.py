"""Whether enough images could be read: damaged ones are passed over, but not all of them."""

from keras_crossvit.data.sources import Source, Split

_STORAGE_AWAY = 1000  # images; fewer that cannot be read may be damaged


def check_any_read(source: Source, split: Split, name: str, value: object, rows: float) -> None:
    """Raises `ValueError` if no image of a split could be read.

    Args:
        source: The data.
        split: The split.
        name: The name of its argument, for the message.
        value: The argument's value.
        rows: Images that could be read.
    """
    if rows == 0:
        raise ValueError(
            f"`{name}` must hold images that can be read. Received: {name}={value!r} of "
            f"{source.name}, whose {split.size} are all damaged, missing or of another format; "
            "the log names them"
        )


def check_storage(source: Source, unread: int) -> None:
    """Raises `OSError` if so many images in a row could not be read that their storage is away.

    Weight decay alone would undo what was learnt.
    """
    if unread >= _STORAGE_AWAY:
        raise OSError(_storage_away(source, f"the last {unread} images"))


def check_held_out(source: Source, rows: float) -> None:
    """Raises `OSError` if most held-out images could not be read.

    The figures of the few that are left could be the best for good.

    Args:
        source: The data.
        rows: Held-out images that could be read.
    """
    unread = source.validation.size - rows
    if unread >= _STORAGE_AWAY and unread > rows:
        raise OSError(_storage_away(source, f"{unread:.0f} held-out images"))


def _storage_away(source, images):
    return (
        f"{source.name} cannot be read: {images} could not be, and the log says why. The same "
        "command goes on from the last checkpoint, if there is one."
    )
