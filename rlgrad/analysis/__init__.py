"""What runs tell side by side: groups of seeds, statistics and plots."""
