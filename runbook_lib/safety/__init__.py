"""Is this the target that was named, and may it be changed?"""
