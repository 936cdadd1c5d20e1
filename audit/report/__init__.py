"""From a run folder to static pages. Needs no TensorFlow."""
