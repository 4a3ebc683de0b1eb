"""HTML pages: the frame, the style and the security policy that all of them have."""
