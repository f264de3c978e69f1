//! Where messages come from: one file a protocol; bytes in, positions out.
