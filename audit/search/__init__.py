"""More images like a target's, from a pool that nobody has labelled."""
