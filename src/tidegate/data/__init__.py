"""Data: from files, frames, arrays and texts to batches."""
