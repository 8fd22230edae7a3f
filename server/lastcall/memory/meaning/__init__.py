"""Texts as vectors of what they mean: by a small model in a process of its own. The extra `lastcall[meaning]`."""
