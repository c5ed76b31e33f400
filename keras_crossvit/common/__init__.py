"""The foundation: what several of the other folders need, and what needs none of them."""
