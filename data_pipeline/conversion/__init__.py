"""Convert all files of a collection: in child processes or on a cluster, resumable.

Begin with `gather`, which reads the inputs and has them converted; `convert` is the work of one
child process.
"""
