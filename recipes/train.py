"""Trains a CrossViT by a recipe: `python recipes/train.py --recipe digits [--epochs 10] ...`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes hide the progress bar

import digits

from keras_crossvit.training import classify_held_out_picture, parse_config, train

RECIPES = {"digits": digits.RECIPE}


def main():
    config = parse_config(RECIPES)
    result = train(config)
    picture, truth, ranking = classify_held_out_picture(
        result["source"], result["export"], config.output_dir
    )
    name, score = ranking[0]
    print(
        f"\nheld-out accuracy: {result['accuracy']:.2%} top-1, {result['top5_accuracy']:.2%} top-5"
    )
    print(f"SavedModel: {result['export']}")
    print(f"the SavedModel on {picture}: {name} ({score:.1%}); it is {truth}")


if __name__ == "__main__":
    main()
