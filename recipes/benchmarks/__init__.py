"""What `recipes/benchmark.py` measures and counts. Needs the package and, for comparisons, timm.

`turns` lets candidates take turns; `candidates` are this package and timm doing the same work,
`engines` runs this package's forward pass in several ways, and `compare` compares them. `models`
builds models by name and counts their cost, `tables` sets that beside the figures of `paper`, and
`figure1` draws it beside measured speeds. `input` measures the input pipeline, `scale` its source
at scale, and `serving` an exported model behind `local_server`.
"""
