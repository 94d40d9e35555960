"""What is to be done: documents, the graphs and conditions made of them, inputs and their checks."""
