"""Clips to batches: from files, from shards, in memory or streamed."""
