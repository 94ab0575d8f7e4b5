"""What models are made of: blocks, wrappers of fields, heads, objectives, and what a model says of itself."""
