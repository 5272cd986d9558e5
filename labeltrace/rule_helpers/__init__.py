"""What rules are made of: element-wise steps, contractions, steps of the user's own."""
