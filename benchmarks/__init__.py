"""What is measured, as ratios taken in one run against a peer or a physical limit: `make bench`."""
