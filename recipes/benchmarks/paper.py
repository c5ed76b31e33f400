"""The figures that the paper prints, in tables 2, 3, 4, 6, 7 and 8 (8: supplementary material).

A line of a table holds a model, the name by which `make_model` builds it (or "-") and the columns.
`@` after a name gives the side of its input, in pixels, where it is not the default.
"""

import dataclasses

_TABLE_2 = """
DeiT-Ti        | deit_tiny          | 72.2 |  1.3 | 2557 |   5.7
CrossViT-Ti    | crossvit_tiny      | 73.4 |  1.6 | 1668 |   6.9
CrossViT-9     | crossvit_9         | 73.9 |  1.8 | 1530 |   8.6
CrossViT-9†    | crossvit_9_dagger  | 77.1 |  2.0 | 1463 |   8.8
DeiT-S         | deit_small         | 79.8 |  4.6 |  966 |  22.1
CrossViT-S     | crossvit_small     | 81.0 |  5.6 |  690 |  26.7
CrossViT-15    | crossvit_15        | 81.5 |  5.8 |  640 |  27.4
CrossViT-15†   | crossvit_15_dagger | 82.3 |  6.1 |  626 |  28.2
DeiT-B         | deit_base          | 81.8 | 17.6 |  314 |  86.6
CrossViT-B     | crossvit_base      | 82.2 | 21.2 |  239 | 104.7
CrossViT-18    | crossvit_18        | 82.5 |  9.0 |  430 |  43.3
CrossViT-18†   | crossvit_18_dagger | 82.8 |  9.5 |  418 |  44.3
"""
_TABLE_3 = """
Perceiver      | -                  | 76.4 | –    |  43.9
DeiT-S         | deit_small         | 79.8 |  4.6 |  22.1
CentroidViT-S  | -                  | 80.9 |  4.7 |  22.3
PVT-S          | -                  | 79.8 |  3.8 |  24.5
PVT-M          | -                  | 81.2 |  6.7 |  44.2
T2T-ViT-14     | -                  | 80.7 |  6.1 |  21.5
TNT-S          | -                  | 81.3 |  5.2 |  23.8
CrossViT-15    | crossvit_15        | 81.5 |  5.8 |  27.4
CrossViT-15†   | crossvit_15_dagger | 82.3 |  6.1 |  28.2
ViT-B@384      | -                  | 77.9 | 17.6 |  86.6
DeiT-B         | deit_base          | 81.8 | 17.6 |  86.6
PVT-L          | -                  | 81.7 |  9.8 |  61.4
T2T-ViT-19     | -                  | 81.4 |  9.8 |  39.0
T2T-ViT-24     | -                  | 82.2 | 15.0 |  64.1
TNT-B          | -                  | 82.8 | 14.1 |  65.6
CrossViT-18    | crossvit_18        | 82.5 |  9.0 |  43.3
CrossViT-18†   | crossvit_18_dagger | 82.8 |  9.5 |  44.3
"""
_TABLE_4 = """
ResNet-101           | ResNet101              | 76.7 | 7.80 | 678 | 44.6
ResNet-152           | ResNet152              | 77.0 | 11.5 | 445 | 60.2
ResNeXt-101-32×4d    | -                      | 78.8 |  8.0 | 477 | 44.2
ResNeXt-101-64×4d    | -                      | 79.6 | 15.5 | 289 | 83.5
SEResNet-101         | -                      | 77.6 |  7.8 | 564 | 49.3
SEResNet-152         | -                      | 78.4 | 11.5 | 392 | 66.8
SENet-154            | -                      | 81.3 | 20.7 | 201 | 115.1
ECA-Net101           | -                      | 78.7 |  7.4 | 591 | 42.5
ECA-Net152           | -                      | 78.9 | 10.9 | 428 | 59.1
RegNetY-8GF          | -                      | 79.9 |  8.0 | 557 | 39.2
RegNetY-12GF         | -                      | 80.3 | 12.1 | 439 | 51.8
RegNetY-16GF         | -                      | 80.4 | 15.9 | 336 | 83.6
RegNetY-32GF         | -                      | 81.0 | 32.3 | 208 | 145.0
EfficientNet-B4@380  | EfficientNetB4         | 82.9 |  4.2 | 356 | 19
EfficientNet-B5@456  | EfficientNetB5         | 83.7 |  9.9 | 169 | 30
EfficientNet-B6@528  | EfficientNetB6         | 84.0 | 19.0 | 100 | 43
EfficientNet-B7@600  | EfficientNetB7         | 84.3 | 37.0 |  55 | 66
CrossViT-15          | crossvit_15            | 81.5 |  5.8 | 640 | 27.4
CrossViT-15†         | crossvit_15_dagger     | 82.3 |  6.1 | 626 | 28.2
CrossViT-15†@384     | crossvit_15_dagger@408 | 83.5 | 21.4 | 158 | 28.5
CrossViT-18          | crossvit_18            | 82.5 | 9.03 | 430 | 43.3
CrossViT-18†         | crossvit_18_dagger     | 82.8 |  9.5 | 418 | 44.3
CrossViT-18†@384     | crossvit_18_dagger@408 | 83.9 | 32.4 | 112 | 44.6
CrossViT-18†@480     | crossvit_18_dagger@504 | 84.1 | 56.6 |  57 | 44.9
"""
_TABLE_6 = """
None            | crossvit_small_none          | 80.2 | 5.3 | 23.7 | 80.2 |  0.1
All-Attention   | crossvit_small_all_attention | 80.0 | 7.6 | 27.7 | 79.9 |  0.5
Class Token     | crossvit_small_class_token   | 80.3 | 5.4 | 24.2 | 80.6 |  7.6
Pairwise        | crossvit_small_pairwise      | 80.3 | 5.5 | 24.2 | 80.3 |  7.3
Cross-Attention | crossvit_small               | 81.0 | 5.6 | 26.7 | 68.1 | 47.2
"""
_TABLE_7 = """
CrossViT-S                  | crossvit_small   | 81.0 | 5.6 | 26.7
A: small patch 8            | crossvit_small_a | 80.8 | 6.7 | 26.7
B: small dimension 384      | crossvit_small_b | 80.1 | 7.7 | 31.4
C: N = 2                    | crossvit_small_c | 80.7 | 6.3 | 28.0
D: L = 2                    | crossvit_small_d | 81.0 | 5.6 | 28.9
E: K = 6, M = 2             | crossvit_small_e | 80.9 | 6.6 | 31.1
"""
_TABLE_8 = """
DeiT-9       | deit_9             | 72.9 | 1.4 |  6.4
CrossViT-9   | crossvit_9         | 73.9 | 1.8 |  8.6
DeiT-9†      | deit_9_dagger      | 75.6 | 1.5 |  6.6
CrossViT-9†  | crossvit_9_dagger  | 77.1 | 2.0 |  8.8
DeiT-15      | deit_15            | 80.8 | 4.9 | 22.9
CrossViT-15  | crossvit_15        | 81.5 | 5.8 | 27.4
DeiT-15†     | deit_15_dagger     | 81.7 | 5.1 | 23.5
CrossViT-15† | crossvit_15_dagger | 82.3 | 6.1 | 28.2
DeiT-18      | deit_18            | 81.4 | 7.8 | 37.1
CrossViT-18  | crossvit_18        | 82.5 | 9.0 | 43.3
DeiT-18†     | deit_18_dagger     | 81.2 | 8.1 | 37.9
CrossViT-18† | crossvit_18_dagger | 82.8 | 9.5 | 44.3
"""

_SPEED = ("top1", "gmacs", "images_per_second", "parameters")
_PLAIN = ("top1", "gmacs", "parameters")
_BRANCHES = (*_PLAIN, "large_top1", "small_top1")


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row of a table.

    Args:
        label: The model, as the table calls it.
        name: The name by which `make_model` builds it; `None` if it cannot.
        columns: `{column: text as printed}`: `top1` (%), `gmacs` (the paper's FLOPs, G),
            `parameters` (M), and in some tables `images_per_second` (V100, batch 64),
            `large_top1` and `small_top1` (%, one branch).
    """

    label: str
    name: str | None
    columns: dict[str, str]


def _rows(text, columns):
    rows = []
    for line in text.strip().splitlines():
        label, name, *values = (part.strip() for part in line.split("|"))
        printed = dict(zip(columns, values, strict=True))
        rows.append(PaperRow(label, None if name == "-" else name, printed))
    return rows


TABLES = {  # number -> title, rows
    2: ("Comparisons with the DeiT baseline", _rows(_TABLE_2, _SPEED)),
    3: ("Comparisons with recent transformers", _rows(_TABLE_3, _PLAIN)),
    4: ("Comparisons with CNNs", _rows(_TABLE_4, _SPEED)),
    6: ("Fusions, of CrossViT-S", _rows(_TABLE_6, _BRANCHES)),
    7: ("Architecture parameters, of CrossViT-S", _rows(_TABLE_7, _PLAIN)),
    8: ("Baselines of the large branch alone", _rows(_TABLE_8, _PLAIN)),
}


def paper_top1(name: str) -> float | None:
    """The top-1 accuracy on ImageNet (%) that the paper prints for a model, or `None`."""
    for _, rows in TABLES.values():
        for row in rows:
            if row.name == name:
                return float(row.columns["top1"])
    return None
