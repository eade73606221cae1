"""The ground of the house: errors, tensors by name, devices, threads and the terminal; it knows no other room."""
