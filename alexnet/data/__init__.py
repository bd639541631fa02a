"""Images: sources, preparation, packs, augmentation and loading (sections 2 and 4.1)."""
