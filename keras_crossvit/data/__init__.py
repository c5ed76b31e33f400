"""Pictures: where they come from, how they are read, cropped, augmented and batched."""
