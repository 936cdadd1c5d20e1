"""From heat-maps and predictions to patterns, findings and targets."""
