"""Next-step forecasters: p(token | tokens before it), one architecture per module."""
