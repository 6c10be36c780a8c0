"""Quality of generated rows: measures of rows, and distances between sets of rows.

rhythm, melody, structure  measures of rows of tokens
originality                how much of a row is in the training rows
measures, families         the class `Measure`; all measures of a task
distances                  overlapping area and Kullback-Leibler divergence of distributions
comparison                 confidence intervals and the real-to-real baseline
latent                     posterior against prior, active units, a projection

All of it is functions of arrays. N counts rows, G the bins of a distribution, R replicates.

Reference: Yang and Lerch 2018, "On the evaluation of generative models in music"; `distances` and
`comparison` list the differences.
"""
