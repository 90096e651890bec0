"""Class activation maps: formulas, programs and methods."""
