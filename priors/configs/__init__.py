"""How priors that ship were trained, one file each."""

from priors.configs.head_2d import HEAD_2D
from priors.configs.head_2d_layout import HEAD_2D_LAYOUT

RECIPES = {"head-2d": HEAD_2D, "head-2d-layout": HEAD_2D_LAYOUT}
