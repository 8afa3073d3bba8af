"""Renderers: from a mesh and a view to pixels. One module per back end."""
