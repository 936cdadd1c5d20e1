"""From a run's frames to what each page shows: frozen dataclasses, no HTML, no files."""
