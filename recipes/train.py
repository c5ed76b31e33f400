"""Trains a CrossViT by a recipe: `python recipes/train.py --recipe digits [--epochs 10] ...`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes hide the progress bar

import digits
import highres
import imagenet
import transfer

from keras_crossvit.training import main

RECIPES = {recipe.__name__: recipe.RECIPE for recipe in (digits, imagenet, highres, transfer)}

if __name__ == "__main__":
    main(RECIPES)
