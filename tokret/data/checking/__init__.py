"""The doctor: what is wrong with photos, before or after they are prepared."""
