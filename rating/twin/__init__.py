"""The bill twin: another billing's charges of a period beside ours, line by line, with the cause of every difference."""
