"""What a sweep would take: from its spec alone, and from a timed probe of a few steps where it would run.

A plan has two halves. ``facts`` reads the spec. ``probe`` starts as many processes as trials would run at once, lets
them time the parts of a few variants side by side, and ``estimate`` makes of these the time of every stage: the search
by playing many sweeps through with the sweep's own early stopping.
"""
