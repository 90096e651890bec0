"""Look inside a network: which photographs move its units, and what its layers make of them."""

from jaxviz.inspection._embed import embed as embed
from jaxviz.inspection._embeddings import Embeddings as Embeddings
from jaxviz.inspection._examples import top_examples as top_examples
from jaxviz.inspection._neighbours import Neighbours as Neighbours
from jaxviz.inspection._neighbours import neighbours as neighbours
from jaxviz.inspection._page import write_page as write_page
from jaxviz.inspection._pca import PCA as PCA
from jaxviz.inspection._pca import pca as pca
from jaxviz.inspection._saved import load_examples as load_examples
from jaxviz.inspection._saved import save_examples as save_examples
from jaxviz.inspection._top import TopExamples as TopExamples
from jaxviz.inspection._tsne import tsne as tsne
