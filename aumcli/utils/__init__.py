"""What knows nothing of audio."""
