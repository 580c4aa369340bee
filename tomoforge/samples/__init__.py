"""Samples: crystal, loop and mother liquor from a seed, as meshes and as a label volume."""
