//! What the journal promises, tried.
