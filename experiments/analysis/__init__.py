"""What `experiments.analyze` needs: the rows to compare, and the report."""
