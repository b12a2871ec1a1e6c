"""The study of quantisers: what its runs share, what they do, and what is made of their logs."""
