//! Space and time for DataFusion: geometry, H3 and time functions, nearest-neighbour search.
