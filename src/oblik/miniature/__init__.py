"""The small model's world: rendered people who do not exist, and their photographs."""
