"""A cell's step over a whole sequence: the reference loop, and what may stand in for it."""
