from .deepnets_plots import plot_statistics
from .evaluation_plots import plot_choices
from .save import save_view, to_svg
from .svg import draw_svg

__all__ = ["draw_svg", "plot_choices", "plot_statistics", "save_view", "to_svg"]
