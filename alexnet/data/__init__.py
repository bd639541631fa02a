"""Images in: sources, preparation, packs, augmentation and loading (sections 2 and 4.1 of the paper)."""
