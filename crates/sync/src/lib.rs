//! What every chain shares. Works on facts and raw bytes: a network's own header type stays in its folder, and no
//! socket is seen here.
//!
//! | module | what it is for |
//! |---|---|
//! | [`chain`] | the seam: what a chain's rules tell |
//! | [`tree`] | which headers are known, which chain is the main one; pure |
//! | [`headers`] | the reactor: whom to ask, what to store, what to serve |

pub mod chain;
pub mod headers;
pub mod tree;

pub use chain::{Ancestor, Ancestry, Chain, HeaderFacts, HeaderFault};
