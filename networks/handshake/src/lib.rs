//! wip
pub mod chain;
pub mod checkpoint;
pub mod mine;
pub mod params;
pub mod wire;
