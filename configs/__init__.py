"""Configs that ship with rlgrad: what `rlgrad train NAME` finds. The first line of each says what it reaches."""
