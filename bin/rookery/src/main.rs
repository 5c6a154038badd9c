//! The `rookery` program. Everything is in the library, so that tests and the fuzzer reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    rookery::run(&rookery::plug::Plugged, std::env::args_os()).into()
}
