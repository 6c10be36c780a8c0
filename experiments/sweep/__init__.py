"""What `experiments.grid_search` needs: axes, executors, run folders of points, the report."""
