"""Quality of generated rows: measures of rows, and distances between sets of rows.

rhythm, melody, structure  what rows are like: a `Measure` each, from tokens
originality                how much of a row is in the training rows
measures                   the `Measure`, and all of a task's at once
distances                  overlapping area and Kullback-Leibler divergence of distributions
comparison                 intervals, and what the same distance is between real rows
latent                     posterior against prior, what units do, a map

All of it is functions of arrays. N counts rows, G the bins of a distribution, R replicates.

Reference: Yang and Lerch 2018, "On the evaluation of generative models in music"; what differs
is said in `distances` and `comparison`.
"""
