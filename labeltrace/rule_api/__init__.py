"""What a rule sees of a call, and which rule serves which operator."""
