"""Tidegate's layers timed beside `torch.nn`, a PyTorch loop and `jax.lax.scan`, on this machine."""
