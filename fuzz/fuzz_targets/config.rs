//! A configuration file's text.
//!
//! No text may panic the parser. What is refused is refused with words, and a file that is taken says the same when it is
//! read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rookery::config::Config;

fuzz_target!(|text: &str| {
    match Config::from_toml(text) {
        Ok(config) => assert_eq!(Config::from_toml(text).ok(), Some(config)),
        Err(report) => assert!(!report.what.is_empty()),
    }
});
