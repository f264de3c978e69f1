//! One catalog and one SQL session over the lake.
