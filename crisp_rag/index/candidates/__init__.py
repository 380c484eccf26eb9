"""Which few passages of many deserve to be scored: inverted lists over clusters of passage vectors.

``clusters`` finds the clusters, ``lists`` finds passages through them, ``calibration`` measures how much work which
recall takes, ``cache`` keeps it all in a file beside the segments and makes it anew when the index has outgrown it.
"""
