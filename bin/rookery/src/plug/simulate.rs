//! The simulation's scenarios.

use crate::exit::Report;
use crate::node::view::{Scenario, Simulated};

pub(super) fn scenarios() -> Vec<Scenario> {
    let all = rookery_sim::scenarios().iter();
    all.map(|scenario| Scenario { name: scenario.name.to_owned(), about: scenario.about.to_owned() })
        .collect()
}

pub(super) fn run(name: &str, seed: u64) -> Result<Simulated, Report> {
    let Some(scenario) = rookery_sim::scenarios::find(name) else {
        return Err(Report::usage(format!("there is no scenario {name}")).hint("rookery sim lists them"));
    };
    Ok(match (scenario.run)(seed) {
        Ok(report) => Simulated {
            scenario: name.to_owned(),
            seed,
            hash: report.hash.to_string(),
            events: report.counts.values().sum(),
            virtual_seconds: report.virtual_time.as_secs_f64(),
            broken: Vec::new(),
        },
        Err(failure) => Simulated {
            scenario: name.to_owned(),
            seed,
            hash: String::new(),
            events: 0,
            virtual_seconds: failure.at.as_secs_f64(),
            broken: failure.to_string().lines().map(str::to_owned).collect(),
        },
    })
}
