"""The operators in plain torch, fast on a CPU and small in memory; they run on any device."""
