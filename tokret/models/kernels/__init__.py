"""Array functions in the form that each platform is fastest at.

The only part of `tokret.models` that looks at the platform. Every special form names
its measured gain and the section of docs/performance.md that has it.
"""
