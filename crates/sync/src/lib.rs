//! What every chain shares.

pub mod chain;
pub mod tree;

pub use chain::{Ancestor, Ancestry, Chain, HeaderFacts, HeaderFault};
