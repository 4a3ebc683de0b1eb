"""Oxford and Paris, of 2007 and revisited, and a million distractors."""
