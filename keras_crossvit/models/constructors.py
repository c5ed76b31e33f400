"""One constructor for each row of table 1: `CrossViT` with its configuration filled in."""

import inspect

from keras_crossvit.models.config import CrossViTConfig
from keras_crossvit.models.crossvit import CrossViT


def _constructor(preset, title):
    def build(*args, **kwargs):
        return CrossViT(CrossViTConfig.preset(preset), *args, **kwargs)

    signature = inspect.signature(CrossViT)
    arguments = [p for p in signature.parameters.values() if p.name != "config"]
    build.__signature__ = signature.replace(parameters=arguments)
    build.__name__ = build.__qualname__ = title
    build.__doc__ = (
        f"{title}, the preset {preset!r} (table 1). Arguments and result: `CrossViT`, "
        "without `config`."
    )
    return build


CrossViTTiny = _constructor("crossvit_tiny", "CrossViTTiny")
CrossViTSmall = _constructor("crossvit_small", "CrossViTSmall")
CrossViTBase = _constructor("crossvit_base", "CrossViTBase")
CrossViT9 = _constructor("crossvit_9", "CrossViT9")
CrossViT15 = _constructor("crossvit_15", "CrossViT15")
CrossViT18 = _constructor("crossvit_18", "CrossViT18")
CrossViT9Dagger = _constructor("crossvit_9_dagger", "CrossViT9Dagger")
CrossViT15Dagger = _constructor("crossvit_15_dagger", "CrossViT15Dagger")
CrossViT18Dagger = _constructor("crossvit_18_dagger", "CrossViT18Dagger")
