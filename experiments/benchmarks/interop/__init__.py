"""Reading other programs' files: robustness and cost."""
