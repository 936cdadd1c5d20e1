"""From a model and images to predictions and metrics."""
