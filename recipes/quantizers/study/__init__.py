"""The study of quantisers: its rows, runs, logs, tables and pictures."""
