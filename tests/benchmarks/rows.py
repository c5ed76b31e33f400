"""A table of the paper in miniature: rows and what the models in them cost."""

from benchmarks.paper import PaperRow


def paper_row(name, gmacs, parameters, label="a model"):
    return PaperRow(label, name, {"top1": "70.0", "gmacs": gmacs, "parameters": parameters})


def cost(parameters, macs, positions=0):
    return {"parameters": parameters, "macs": macs, "position_parameters": positions}
