"""HTML and SVG from plain data: pages that need nothing from elsewhere, and no script."""
