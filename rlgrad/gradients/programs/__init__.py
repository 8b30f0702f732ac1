"""Programs that answer a question: one backward pass, recorded, vectorized, compiled and cached."""
