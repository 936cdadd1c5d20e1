"""The report of a comparison: what changed, where the focus went, image by image."""
