"""Stimuli: object sets, views, image banks on disk, and frozen features of them."""
