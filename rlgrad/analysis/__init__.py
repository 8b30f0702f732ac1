"""Analysis of runs side by side: groups of seeds, statistics, plots; and the check of an environment before training."""
