"""Label alignment written out by hand, one architecture a file, to test the library against.

Each file walks one architecture block by block and moves labels as the paper prescribes (section 3,
equations 5 to 11, and Table 10), in float64, with dense matrices and loops. Nothing in here imports
labeltrace: the replicas know the architectures, the library knows only operators.
"""
