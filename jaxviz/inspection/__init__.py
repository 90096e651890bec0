"""Look inside a network: which photographs move its units, and what its layers make of them."""

from jaxviz.inspection._examples import TopExamples as TopExamples
from jaxviz.inspection._examples import top_examples as top_examples
