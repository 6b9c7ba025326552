//! Readers of recorded access traces.
