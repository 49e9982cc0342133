"""DeepNets-1M: the distribution of training architectures (GHN-2, arXiv 2110.13100, section 4)."""
