"""How the book's figures are drawn."""


def vector() -> None:
    """Let a notebook's figures be drawings, sharp on every screen, and the same bytes each time."""
    import matplotlib.pyplot as plt
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg", metadata={"Date": None})
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "figure"})
