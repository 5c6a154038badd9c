//! What each command does.

mod demo;
mod lines;
mod meeting;
mod run;
mod sync;
mod talk;

use std::net::SocketAddr;

use crate::cli::{About, Cli, Command, ConfigAction, definition};
use crate::config::layers::Surroundings;
use crate::config::text::default_toml;
use crate::config::value::PeerAddress;
use crate::config::{Config, Settled};
use crate::control::client::ask;
use crate::control::{Question, show};
use crate::exit::{Exit, Report};
use crate::network::Network;
use crate::node::view::{BanRow, ChainView, NodeWhy, PeerRow, PeerWhy, Scenario, Simulated, Status};
use crate::node::{self, Machinery, Probe};
use crate::output::{Align, Output, fields, table};

/// Does what the command line says.
pub fn execute(machinery: &dyn Machinery, cli: Cli) -> Result<(), Report> {
    let out = Output::stdout(cli.common.json);
    match &cli.command {
        Command::Completions { shell } => return completions(*shell, out),
        Command::Config { action: None } => return out.text(&default_toml()),
        _ => {}
    }
    let settled = Settled::load(&Surroundings::system(), cli.common.config.clone(), cli.assignments())?;
    let config = &settled.config;
    settled.check_flags()?;
    match cli.command {
        Command::Run { .. } => with_runtime(config, run::run(machinery, config.clone(), out)),
        Command::Sync { .. } if config.network == Network::Overlay => {
            Err(Report::usage("the overlay has no chain to catch up with")
                .hint("join it: rookery run --network overlay"))
        }
        Command::Id { .. } if config.network != Network::Overlay => {
            Err(Report::usage(format!("nodes of {} have no identity of their own", config.network))
                .hint("that of the overlay: rookery id --network overlay"))
        }
        Command::Sync { patience, .. } => {
            with_runtime(config, sync::sync(machinery, config.clone(), patience, out))
        }
        Command::Demo { .. } if config.network == Network::Overlay => {
            with_runtime(&demo::config(&settled), meeting::meeting(machinery, out))
        }
        Command::Demo { headers } => {
            let config = demo::config(&settled);
            with_runtime(&config, demo::demo(machinery, headers, out))
        }
        Command::Probe { of, address, question } => {
            let probe = probe_of(&of, &address, question)?;
            with_runtime(config, ask_peer(machinery, probe, out))
        }
        Command::Status => out.value(&ask::<Status>(config, Question::Status)?, show::status),
        Command::Peers { address: None, .. } => {
            out.value(&ask::<Vec<PeerRow>>(config, Question::Peers)?, |rows, paint| show::peers(rows, paint))
        }
        Command::Peers { address: Some(address), about: Some(About::Why) | None } => {
            peer_why(&ask::<Vec<PeerWhy>>(config, Question::PeerWhy { address })?, address, out)
        }
        Command::Id { .. } => {
            out.value(&machinery.identity(config)?, |identity, _| identity.peer_id.clone() + "\n")
        }
        Command::Bans => {
            out.value(&ask::<Vec<BanRow>>(config, Question::Bans)?, |rows, paint| show::bans(rows, paint))
        }
        Command::Chain => out.value(&ask::<ChainView>(config, Question::Chain)?, show::chain),
        Command::Why => out.value(&ask::<NodeWhy>(config, Question::Why)?, show::why),
        Command::Sim { scenario: None, .. } => scenarios(machinery, out),
        Command::Sim { scenario: Some(scenario), seed } => {
            crate::log::start(config)?;
            simulate(machinery, &scenario, seed, out)
        }
        Command::Config { action: Some(ConfigAction::Show { origin }) } => show_config(&settled, origin, out),
        // Loading was the check; the other two never come here.
        Command::Config { .. } | Command::Completions { .. } => Ok(()),
    }
}

/// Why a peer is treated as it is: one value for each of its ports.
fn peer_why(all: &[PeerWhy], address: SocketAddr, out: Output) -> Result<(), Report> {
    if all.is_empty() {
        let whom = if address.port() == 0 { address.ip().to_string() } else { address.to_string() };
        return Err(Report::new(Exit::Failed, format!("the node has never met {whom}"))
            .hint("`rookery peers` lists the addresses of those that are connected"));
    }
    all.iter().try_for_each(|why| out.value(why, show::peer_why))
}

/// Runs a command that needs the network.
fn with_runtime(config: &Config, command: impl Future<Output = Result<(), Report>>) -> Result<(), Report> {
    crate::log::start(config)?;
    let runtime = crate::service::runtime()?;
    let ended = runtime.block_on(command);
    // What had not stopped in time has been named; waiting for it again would only hang.
    runtime.shutdown_background();
    match ended {
        Err(report) if report.exit == Exit::Clean => Ok(()),
        ended => ended,
    }
}

fn completions(shell: clap_complete::Shell, out: Output) -> Result<(), Report> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "rookery", &mut script);
    out.text(&String::from_utf8_lossy(&script))
}

fn probe_of(network: &str, address: &str, question: node::Question) -> Result<Probe, Report> {
    let network = Network::by_name(network).ok_or_else(|| {
        let names: Vec<_> = Network::ALL.iter().map(|network| network.name()).collect();
        Report::usage(format!("unknown network {network:?}"))
            .hint(format!("the networks are {}", names.join(", ")))
    })?;
    let address = PeerAddress::parse(address)
        .ok_or_else(|| Report::usage(format!("{address:?} is no address: expected HOST or HOST:PORT")))?;
    Ok(Probe { network, address: address.with_port(network.preset().port), question })
}

async fn ask_peer(machinery: &dyn Machinery, probe: Probe, out: Output) -> Result<(), Report> {
    let env = rookery_runtime::Env::system();
    let mut signals = crate::signals::Signals::listen(env.clock)?;
    let answer = tokio::select! {
        biased;
        name = signals.next() => Err(Report::new(Exit::Clean, format!("{name} before the answer"))),
        answer = machinery.probe(&env, &probe) => answer,
    };
    crate::signals::stop(&env.scope, &mut signals).await?;
    out.value(&answer?, show::probe)
}

fn scenarios(machinery: &dyn Machinery, out: Output) -> Result<(), Report> {
    out.value(&machinery.scenarios(), |scenarios: &Vec<Scenario>, paint| {
        let rows: Vec<_> =
            scenarios.iter().map(|scenario| vec![scenario.name.clone(), scenario.about.clone()]).collect();
        table(*paint, &[("scenario", Align::Left), ("what it shows", Align::Left)], &rows)
    })
}

fn simulate(machinery: &dyn Machinery, scenario: &str, seed: u64, out: Output) -> Result<(), Report> {
    let ran = machinery.simulate(scenario, seed)?;
    out.value(&ran, |ran: &Simulated, paint| {
        let verdict = match ran.broken.is_empty() {
            true => paint.good("every promise held"),
            false => paint.bad(&ran.broken.join("\n")),
        };
        fields(
            *paint,
            &[
                ("scenario", ran.scenario.clone()),
                ("seed", ran.seed.to_string()),
                ("hash", ran.hash.clone()),
                ("events", ran.events.to_string()),
                ("virtual time", format!("{:.1} s", ran.virtual_seconds)),
                ("verdict", verdict),
            ],
        )
    })?;
    if ran.broken.is_empty() {
        return Ok(());
    }
    Err(Report::new(Exit::Failed, format!("{} promises were broken", ran.broken.len()))
        .hint(format!("it repeats: rookery sim {scenario} --seed {seed} --log debug")))
}

fn show_config(settled: &Settled, origin: bool, out: Output) -> Result<(), Report> {
    if out.json {
        let rows: Vec<_> = settled
            .rows()
            .into_iter()
            .map(|(key, value, origin)| {
                serde_json::json!({ "key": key, "value": value, "origin": origin.to_string() })
            })
            .collect();
        return out.value(&rows, |_, _| String::new());
    }
    let paint = crate::output::Paint { on: out.colour };
    if !origin {
        let line = |(key, value, _)| format!("{key} = {value}\n");
        return out.text(&settled.rows().into_iter().map(line).collect::<String>());
    }
    let rows: Vec<_> = settled
        .rows()
        .into_iter()
        .map(|(key, value, origin)| vec![key.to_owned(), value, origin.to_string()])
        .collect();
    let columns = [("key", Align::Left), ("value", Align::Left), ("origin", Align::Left)];
    out.text(&table(paint, &columns, &rows))
}
