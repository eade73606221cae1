"""One module for each family of published models, and a folder for the shapes prior that ships."""
