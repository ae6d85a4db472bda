"""Dense prediction: reference, exact and adaptive modes, and whole volumes."""
