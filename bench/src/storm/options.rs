//! The command lines of the storm.

use super::{Keys, Outcome, Plan, Sources, Stack};

/// Peers of a storm when none are asked for: what the public stacks are measured with.
const PEERS: usize = 1_000;
/// Peers at most. Each takes a port and a descriptor or more of the client's process.
const MOST_PEERS: usize = 20_000;
/// Runs when none are asked for: the least that has a median between others.
const RUNS: usize = 3;

/// How to call it.
pub const USAGE: &[&str] = &[
    "bench storm [STACK ...] [OPTIONS]      ours and bare quinn in turns; the figures are the first stack's",
    "bench vs [storm] [STACK ...] [OPTIONS] ours, bare quinn and the rivals (cargo feature `rivals`) in turns",
    "  --peers N  --runs R  --sources one|many  --identity mldsa65|ed25519  --default-buffers  --json",
];

/// Storms, as a user asks for them.
#[derive(Debug)]
pub struct Runs {
    /// Who takes turns.
    pub stacks: Vec<Stack>,
    /// The same for all of them.
    pub plan: Plan,
    /// How often.
    pub runs: usize,
    /// JSON lines on standard output in place of a table.
    pub json: bool,
    /// The first stack is what is measured and the others are what it is held against; a peer that it loses is a
    /// failure. Without it, all of them are shown side by side.
    pub judged: bool,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// Storms.
    Runs(Runs),
    /// The server's process.
    Serve(Stack, Plan),
    /// The process of the peers, and the server's invitation.
    Connect(Stack, Plan, String),
}

/// Reads a command line; `None` when the command is none of ours.
pub fn parse(command: &str, args: &[String]) -> Option<Outcome<Asked>> {
    match command {
        "storm" => Some(runs(args, Stack::PAIRED, true)),
        "vs" => {
            let args = if args.first().is_some_and(|first| first == "storm") { &args[1..] } else { args };
            Some(runs(args, Stack::ALL, false))
        }
        SERVE => Some(child(args).and_then(|(stack, plan, rest)| match rest.as_slice() {
            [] => Ok(Asked::Serve(stack, plan)),
            _ => Err(format!("{SERVE} takes one stack")),
        })),
        CONNECT => Some(child(args).and_then(|(stack, plan, rest)| match rest.as_slice() {
            [invitation] => Ok(Asked::Connect(stack, plan, (*invitation).to_owned())),
            _ => Err(format!("{CONNECT} takes a stack and an invitation")),
        })),
        _ => None,
    }
}

/// The server's process.
pub const SERVE: &str = "storm-serve";
/// The peers' process.
pub const CONNECT: &str = "storm-connect";

/// Options in place, and what is not an option.
struct Read<'a> {
    plan: Plan,
    runs: usize,
    json: bool,
    names: Vec<&'a str>,
}

fn read(args: &[String]) -> Outcome<Read<'_>> {
    let plan = Plan { peers: PEERS, sources: Sources::One, keys: Keys::MlDsa65, default_buffers: false };
    let mut read = Read { plan, runs: RUNS, json: false, names: Vec::new() };
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg {
            "--peers" => read.plan.peers = number(value()?, MOST_PEERS)?,
            "--runs" => read.runs = number(value()?, usize::MAX)?,
            "--sources" => {
                read.plan.sources = one_of(value()?, &[("one", Sources::One), ("many", Sources::Many)])?
            }
            "--identity" => {
                read.plan.keys =
                    one_of(value()?, &[Keys::MlDsa65, Keys::Ed25519].map(|keys| (keys.name(), keys)))?;
            }
            "--default-buffers" => read.plan.default_buffers = true,
            "--json" => read.json = true,
            name if !name.starts_with('-') => read.names.push(name),
            _ => return Err(format!("a storm has no {arg}")),
        }
    }
    Ok(read)
}

fn runs(args: &[String], default: &[Stack], judged: bool) -> Outcome<Asked> {
    let Read { plan, runs, json, names } = read(args)?;
    let named = names.into_iter().map(stack).collect::<Outcome<Vec<_>>>()?;
    let stacks = if named.is_empty() { default.to_vec() } else { named };
    Ok(Asked::Runs(Runs { stacks, plan, runs, json, judged }))
}

fn child(args: &[String]) -> Outcome<(Stack, Plan, Vec<&str>)> {
    let Read { plan, mut names, .. } = read(args)?;
    if names.is_empty() {
        return Err("a stack is missing".into());
    }
    let rest = names.split_off(1);
    Ok((stack(names[0])?, plan, rest))
}

/// The arguments that tell a process of this plan.
pub fn arguments(plan: &Plan) -> Vec<String> {
    let sources = match plan.sources {
        Sources::One => "one",
        Sources::Many => "many",
    };
    let mut args = vec!["--peers".to_owned(), plan.peers.to_string()];
    args.extend(["--sources", sources, "--identity", plan.keys.name()].map(str::to_owned));
    args.extend(plan.default_buffers.then(|| "--default-buffers".to_owned()));
    args
}

fn stack(name: &str) -> Outcome<Stack> {
    let found = Stack::ALL.iter().copied().find(|stack| stack.name() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = Stack::ALL.iter().map(|stack| stack.name()).collect();
        format!("there is no stack {name}: there are {}", names.join(", "))
    })
}

fn number(text: &str, most: usize) -> Outcome<usize> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{text} is not a number from 1 to {most}"))
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Outcome<T> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    found.ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("{text} is none of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Outcome<Asked> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words[0], &words[1..]).expect("a command of the storm")
    }

    #[test]
    fn a_process_is_told_the_whole_plan() {
        let plan = Plan { peers: 7, sources: Sources::Many, keys: Keys::Ed25519, default_buffers: true };
        let args = [vec!["quinn".to_owned(), "somewhere".to_owned()], arguments(&plan)].concat();
        let Some(Ok(Asked::Connect(stack, told, invitation))) = parse(CONNECT, &args) else {
            panic!("not understood")
        };
        assert_eq!((stack, told, invitation.as_str()), (Stack::Quinn, plan, "somewhere"));
    }

    #[test]
    fn vs_is_all_stacks_and_storm_is_the_pair() {
        for (line, stacks, judged) in [
            ("vs", Stack::ALL, false),
            ("vs storm --peers 5", Stack::ALL, false),
            ("storm --json", Stack::PAIRED, true),
            ("storm quinn iroh", &[Stack::Quinn, Stack::Iroh], true),
        ] {
            let Ok(Asked::Runs(runs)) = asked(line) else { panic!("{line}: not understood") };
            assert_eq!((runs.stacks.as_slice(), runs.judged), (stacks, judged), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for wrong in [
            "storm --peers 0",
            "storm --peers 20001",
            "storm --sources few",
            "storm --identity rsa",
            "storm nothing",
            "storm --peers",
            "vs --fast",
            "storm-serve",
            "storm-serve quinn more",
            "storm-connect quinn",
        ] {
            assert!(asked(wrong).is_err(), "{wrong:?}");
        }
    }
}
