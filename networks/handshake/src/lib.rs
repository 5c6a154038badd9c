//! wip
pub mod chain;
pub mod params;
pub mod wire;
