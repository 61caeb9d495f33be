"""Video and image folders in, labelled pictures out: reading, training clips, and the layouts of the benchmarks."""
