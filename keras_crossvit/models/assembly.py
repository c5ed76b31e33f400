"""The parts of a CrossViT, put together from the bottom of figure 2 to its top."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_crossvit.layers import (
    PATCH_EMBEDS,
    BicubicResize,
    ClassToken,
    MultiScaleBlock,
    PositionEmbedding,
    TokenPool,
    TransformerBlock,
)
from keras_crossvit.layers.parts import dense, layer_norm
from keras_crossvit.models.config import CrossViTConfig


@dataclasses.dataclass
class BranchLayers:
    """The layers of one branch by role, in the order in which tokens pass through them.

    Args:
        resize: From the model's image to the branch's, `BicubicResize`; `None` if the
            branch sees the image as it is.
        patch_embed: The patch embedding.
        class_token: `ClassToken`, or `None` in a model without class tokens.
        position_embedding: `PositionEmbedding`.
        blocks: For each stage, the list of the branch's encoders, `TransformerBlock`.
        norm: The last layer normalisation.
        pool: `TokenPool`, or `None` in a model that returns all tokens.
        head: The classification head, a `Dense` layer, or `None` in a model without a top.
    """

    resize: Any = None
    patch_embed: Any = None
    class_token: Any = None
    position_embedding: Any = None
    blocks: list = dataclasses.field(default_factory=list)
    norm: Any = None
    pool: Any = None
    head: Any = None

    def pooled(self, tokens: Any) -> Any:
        """The branch's tokens after the last stage, normalised, as one vector `(B, C)`."""
        # Only the class token is used, so only the class token is normalised.
        if self.pool.mode == "token":
            return self.norm(self.pool(tokens))
        return self.pool(self.norm(tokens))


class Assembly:
    """Makes the layers of a model, each with the tensors that go through it.

    Each method takes and returns Keras tensors, those of the branches as a dictionary.

    Args:
        config: The architecture.
        size: `(height, width)` of the model's image, in pixels.
        drop_path_rate: As in `CrossViT`.
        gradient_checkpointing: As in `CrossViT`.
        dtype: Name of the dtype policy of the layers. A name, not the policy, since layers
            without a `get_config` of their own can be cloned only from plain values.

    Attributes:
        branches: `{"small": BranchLayers, "large": BranchLayers}`, filled in by the methods.
        stages: The multi-scale blocks, or the encoders of a model of one branch.
        grids: `{"small": (rows, columns), "large": (rows, columns)}` of patches.
    """

    def __init__(
        self,
        config: CrossViTConfig,
        size: tuple[int, int],
        drop_path_rate: float,
        gradient_checkpointing: bool,
        dtype: str,
    ) -> None:
        self.config = config
        self.sizes, self.grids = config.branch_sizes(*size), config.grids(*size)
        self.drop_path_rate = drop_path_rate
        self.gradient_checkpointing = gradient_checkpointing
        self.dtype = dtype
        self.branches = {branch: BranchLayers() for branch in config.branches}
        self.stages: list[keras.layers.Layer] = []

    def embed(self, pixels: dict[str, Any]) -> dict[str, Any]:
        """From the normalised images to the tokens of each branch: equation 1, first line."""
        return {branch: self._embed(pixels[branch], branch) for branch in self.branches}

    def _embed(self, pixels, branch):
        config, layers = self.config.branches[branch], self.branches[branch]
        if tuple(pixels.shape[1:3]) != self.sizes[branch]:
            layers.resize = BicubicResize(*self.sizes[branch], name=f"{branch}_resize")
            pixels = layers.resize(pixels)
        layers.patch_embed = PATCH_EMBEDS[self.config.patch_embed](
            config.patch_size, config.embed_dim, dtype=self.dtype, name=f"{branch}_patch_embed"
        )
        tokens = layers.patch_embed(pixels)
        if self.config.class_token:
            layers.class_token = ClassToken(dtype=self.dtype, name=f"{branch}_class_token")
            tokens = layers.class_token(tokens)
        layers.position_embedding = PositionEmbedding(
            dtype=self.dtype, name=f"{branch}_position_embedding"
        )
        return layers.position_embedding(tokens)

    def encode(self, tokens: dict[str, Any]) -> dict[str, Any]:
        """The K multi-scale blocks, or the encoders of the large branch alone."""
        depth = max(branch.depth for branch in self.config.branches.values())
        if self.config.fusion_depth > 1:  # the released code counts the fusion modules, too
            depth += self.config.fusion_depth
        rates = np.linspace(0, self.drop_path_rate, self.config.num_stages * depth)
        if self.config.small is None:
            return {"large": self._one_branch(tokens["large"], rates)}
        rates = rates.reshape(self.config.num_stages, depth)
        return dict(zip(tokens, self._two_branches(list(tokens.values()), rates), strict=True))

    def _one_branch(self, tokens, rates):
        for index, rate in enumerate(rates):
            block = TransformerBlock(
                self.config.large.num_heads,
                self.config.large.mlp_ratio,
                drop_path_rate=rate,
                gradient_checkpointing=self.gradient_checkpointing,
                dtype=self.dtype,
                name=f"large_block_{index}",
            )
            tokens = block(tokens)
            self.stages.append(block)
            self.branches["large"].blocks.append([block])
        return tokens

    def _two_branches(self, tokens, rates):
        small, large = self.config.small, self.config.large
        for index, stage_rates in enumerate(rates):
            stage = MultiScaleBlock(
                small_depth=small.depth,
                large_depth=large.depth,
                small_num_heads=small.num_heads,
                large_num_heads=large.num_heads,
                small_mlp_ratio=small.mlp_ratio,
                large_mlp_ratio=large.mlp_ratio,
                fusion=self.config.fusion,
                fusion_depth=self.config.fusion_depth,
                drop_path_rates=stage_rates,
                gradient_checkpointing=self.gradient_checkpointing,
                class_token=self.config.class_token,
                small_grid=self.grids["small"],
                large_grid=self.grids["large"],
                dtype=self.dtype,
                name=f"stage_{index}",
            )
            tokens = stage(tokens)
            self.stages.append(stage)
            self.branches["small"].blocks.append(stage.small_blocks)
            self.branches["large"].blocks.append(stage.large_blocks)
        return tokens

    def norm(self, tokens: dict[str, Any]) -> dict[str, Any]:
        """All tokens of each branch, normalised."""
        for branch, layers in self.branches.items():
            layers.norm = layer_norm(f"{branch}_norm", self.dtype)
        return {branch: self.branches[branch].norm(x) for branch, x in tokens.items()}

    def pool(self, tokens: dict[str, Any], mode: str) -> dict[str, Any]:
        """The tokens of each branch, normalised, as one vector `(B, C)`."""
        return {branch: self._pool(x, branch, mode) for branch, x in tokens.items()}

    def _pool(self, tokens, branch, mode):
        layers = self.branches[branch]
        layers.pool = TokenPool(
            mode, self.config.class_token, dtype=self.dtype, name=f"{branch}_pool"
        )
        layers.norm = layer_norm(f"{branch}_norm", self.dtype)
        return layers.pooled(tokens)

    def classify(self, features: dict[str, Any], classes: int, drop_rate: float) -> Any:
        """The mean of the heads' logits `(B, classes)`, in float32 whatever the policy."""
        logits = []
        for branch, x in features.items():
            if drop_rate > 0:
                dropout = keras.layers.Dropout(
                    drop_rate, dtype=self.dtype, name=f"{branch}_dropout"
                )
                x = dropout(x)
            head = dense(classes, f"{branch}_head", self.dtype)
            self.branches[branch].head = head
            logits.append(head(x))
        return keras.layers.Average(dtype="float32", name="logits")(logits)
