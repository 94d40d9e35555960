"""Labels e-mail records by a linear model and by named rules."""
