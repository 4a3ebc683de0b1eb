"""Token: attention, tokenizer, refinement (paper, section 3)."""
