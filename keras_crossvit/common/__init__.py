"""The ground floor: what several rooms need, and what itself needs none of them."""
