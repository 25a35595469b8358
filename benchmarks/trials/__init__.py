"""Tasks on which techniques show what they do: one file a family, with its arms, its rows and what must hold."""
