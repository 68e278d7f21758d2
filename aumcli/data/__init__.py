"""From files to waveforms: decoding, prepared corpora, augmentation and batches."""
