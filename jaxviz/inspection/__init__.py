"""Look inside a network: which photographs move its units, and what its layers make of them."""

from jaxviz.inspection._examples import top_examples as top_examples
from jaxviz.inspection._saved import load_examples as load_examples
from jaxviz.inspection._saved import save_examples as save_examples
from jaxviz.inspection._top import TopExamples as TopExamples
