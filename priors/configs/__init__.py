"""How priors that ship were trained, one file each."""
