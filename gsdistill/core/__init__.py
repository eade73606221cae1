"""What all rooms build on: errors, structs of tensors, devices, threads and the terminal; imports no other room."""
