"""Look inside a network: which photographs move its units, and what its layers make of them."""

from jaxviz.inspection._changes import Changes as Changes
from jaxviz.inspection._changes import changes as changes
from jaxviz.inspection._changes import cka as cka
from jaxviz.inspection._examples import top_examples as top_examples
from jaxviz.inspection._saved import load_examples as load_examples
from jaxviz.inspection._saved import save_examples as save_examples
from jaxviz.inspection._top import TopExamples as TopExamples
