"""What changed from one run to the next: predictions, where the focus went, the patterns."""
