//! What every chain shares.

pub mod chain;

pub use chain::{Ancestor, Ancestry, Chain, HeaderFacts, HeaderFault};
