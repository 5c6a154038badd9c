//! The tree against a naive one, and its promises one by one.

mod cases;
mod flood;
mod index;
mod measure;
mod model;
mod toy;
