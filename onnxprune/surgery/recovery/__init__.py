"""Recovery without training: what a removed channel did is taken over by those that stay."""
