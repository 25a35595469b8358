"""What a training run found, as one page that opens without a network."""
