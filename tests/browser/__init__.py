"""Exported models in the browser player itself: in Node, and as a page in Chromium."""
