"""Look inside a network: which photographs move its units, and what its layers make of them."""

from jaxviz.inspection._embed import embed as embed
from jaxviz.inspection._embeddings import Embeddings as Embeddings
from jaxviz.inspection._examples import TopExamples as TopExamples
from jaxviz.inspection._examples import top_examples as top_examples
from jaxviz.inspection._filters import Filters as Filters
from jaxviz.inspection._filters import Weights as Weights
from jaxviz.inspection._filters import filters as filters
from jaxviz.inspection._filters import weights as weights
from jaxviz.inspection._grid import ActivationGrid as ActivationGrid
from jaxviz.inspection._grid import activation_grid as activation_grid
from jaxviz.inspection._groups import ActivationGroups as ActivationGroups
from jaxviz.inspection._groups import activation_groups as activation_groups
from jaxviz.inspection._maps import FeatureMaps as FeatureMaps
from jaxviz.inspection._maps import feature_maps as feature_maps
from jaxviz.inspection._neighbours import Neighbours as Neighbours
from jaxviz.inspection._neighbours import neighbours as neighbours
from jaxviz.inspection._nmf import Factors as Factors
from jaxviz.inspection._nmf import nmf as nmf
from jaxviz.inspection._pca import PCA as PCA
from jaxviz.inspection._pca import pca as pca
from jaxviz.inspection._tsne import tsne as tsne
