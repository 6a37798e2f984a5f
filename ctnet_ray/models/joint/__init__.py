"""Networks that are trained on the samples of two domains together.

All read batches of one domain each (`Batch.domain`), in turns: a step computes the loss of its batch's domain
only, so that the sum of both domains' losses is minimised over the steps. What a feature of one domain
alone holds in the other is the missing value.
"""
