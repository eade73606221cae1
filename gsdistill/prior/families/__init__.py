"""One module for each family of published models, and for the shapes prior that ships."""
