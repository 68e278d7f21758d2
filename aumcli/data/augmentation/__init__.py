"""What training changes at random: waveforms, spectrograms."""
