"""The report of a conversion, as text and as a page.

`report` collects the numbers and writes the text, `page` the HTML.
"""
