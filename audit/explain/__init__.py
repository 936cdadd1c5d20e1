"""From predictions to heat-maps and the numbers that describe them."""
