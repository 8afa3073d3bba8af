"""Object sets: meshes with a category, an identity and a split. One module per kind."""
