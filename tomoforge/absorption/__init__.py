"""Absorption: ray paths through labels, factors of reflections, a synthetic experiment to test them."""
