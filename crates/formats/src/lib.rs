//! What payloads and GIS files mean: one file a format; pure decoding, no network, no runtime.
