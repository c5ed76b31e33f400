"""The features of figure 5."""

from keras_crossvit.visualize.graph import Graph, to_array


def feature_maps(model, images, stage=-1):
    """The patch tokens after a stage, as maps (figure 5).

    Args:
        model: A CrossViT with any fusion, or a model of one branch; it is not changed.
        images: `(B, H, W, 3)`, as the model takes them.
        stage: Number of the stage, from 0; negative ones count from the end. Figure 5 has the
            last. In a model of one branch each encoder is a stage.

    Returns:
        `{"small": (B, rows, columns, C_small), "large": (B, rows, columns, C_large)}`
        (without "small" for one branch): the tokens as they leave the stage, not normalised,
        any values. The channel c of an image is the map `maps["small"][i, :, :, c]`.

    Raises:
        ValueError: If there is no such stage, or the images do not fit.
    """
    graph = Graph(model)
    images = graph.check_images(images)
    first = int(graph.class_token)
    maps = {}
    for branch, x in graph.tokens_after(images, graph.stage(stage)).items():
        patches = to_array(x)[:, first:]
        maps[branch] = patches.reshape(len(patches), *model.grids[branch], -1)
    return maps
