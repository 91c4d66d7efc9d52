//! Placeholder until its lane lands.
