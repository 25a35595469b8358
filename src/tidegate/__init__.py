"""Tidegate: recurrent networks that train."""
