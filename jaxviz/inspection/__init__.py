"""Look inside a network: which photographs move its units, and what its layers make of them."""

from jaxviz.inspection._changes import Changes as Changes
from jaxviz.inspection._changes import changes as changes
from jaxviz.inspection._changes import cka as cka
from jaxviz.inspection._examples import TopExamples as TopExamples
from jaxviz.inspection._examples import top_examples as top_examples
