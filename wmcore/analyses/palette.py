"""Okabe & Ito's colour-blind safe palette (2008), and the greys of nulls and ceilings, for the figures of analyses."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NULL = "0.82"
CEILING = "0.3"
