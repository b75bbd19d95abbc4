"""All that knows of Jupyter, figures, claims and the site."""
