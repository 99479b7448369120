"""From arrays to training batches: labels, weights, the honest split, batches."""
