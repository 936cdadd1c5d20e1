"""Who hands out shards."""
