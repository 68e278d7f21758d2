"""Sound files to samples: decoding, containers, channels, resampling, integrity."""
