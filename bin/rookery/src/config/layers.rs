//! The layers: file, environment and flags, each a list of assignments that know where they come from.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::keys::{KEYS, Key, distance, nearest};
use super::value::Raw;
use crate::exit::{Exit, Report};
use crate::network::Network;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The choice of the network did.
    Preset(Network),
    /// A line of a file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// An option of the command line, without its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(network) => write!(f, "preset of {network}"),
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// What a process finds around it. A value, so that tests can make one up.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// `$XDG_DATA_HOME` or its default; empty when there is no home.
    pub data_home: PathBuf,
    /// Configuration files, the first that exists is read.
    pub files: Vec<PathBuf>,
}

impl Surroundings {
    /// This process's.
    pub fn system() -> Self {
        let mut surroundings = Self::nowhere();
        surroundings.environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        if let Ok(dirs) = etcetera::base_strategy::Xdg::new() {
            surroundings.data_home = dirs.data_dir();
            surroundings.files.push(dirs.config_dir().join("rookery/config.toml"));
        }
        surroundings.files.push(PathBuf::from("/etc/rookery/config.toml"));
        surroundings
    }

    /// A machine without home, files and environment.
    pub const fn nowhere() -> Self {
        Self { environment: BTreeMap::new(), data_home: PathBuf::new(), files: Vec::new() }
    }
}

/// One key set by one layer.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The key.
    pub key: &'static Key,
    /// The value as the layer gave it.
    pub raw: Raw,
    /// The layer.
    pub origin: Origin,
}

impl Assignment {
    /// Sets the value.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), Report> {
        (self.key.put)(config, &self.raw).map_err(|expected| {
            let (path, origin, raw) = (self.key.path, &self.origin, &self.raw);
            Report::usage(format!("{path} ({origin}): expected {expected}, got {raw}"))
                .hint("`rookery config` prints every key with its meaning and default")
        })
    }
}

/// A configuration file is a page or two; what is larger is some other file.
const MAX_FILE_LEN: u64 = 64 * 1024;

/// The file's assignments: of the one that was asked for, which must exist, or of the first that does.
pub fn from_file(surroundings: &Surroundings, asked: Option<PathBuf>) -> Result<Vec<Assignment>, Report> {
    let asked = asked.or_else(|| surroundings.environment.get(FILE_VARIABLE).map(PathBuf::from));
    if let Some(path) = asked {
        return match read(&path)? {
            Some(text) => from_toml(&text, &path),
            None => Err(Report::usage(format!("there is no configuration file {}", path.display()))
                .hint(format!("make one: rookery config > {}", path.display()))),
        };
    }
    for path in &surroundings.files {
        if let Some(text) = read(path)? {
            return from_toml(&text, path);
        }
    }
    Ok(Vec::new())
}

/// Names the file, as `--config` does; the only variable that is not a key.
const FILE_VARIABLE: &str = "ROOKERY_CONFIG";

fn read(path: &Path) -> Result<Option<String>, Report> {
    let unreadable = |error| Report::io(Exit::Usage, format_args!("cannot read {}", path.display()), &error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(MAX_FILE_LEN + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_LEN {
        let what = format!("{} is longer than {MAX_FILE_LEN} bytes", path.display());
        return Err(Report::usage(what).hint("is it a configuration file?"));
    }
    Ok(Some(text))
}

/// A file's assignments. `path` is for messages.
pub fn from_toml(text: &str, path: &Path) -> Result<Vec<Assignment>, Report> {
    let line_of =
        |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
    let root = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        Report::usage(format!("{}, line {line}: {}", path.display(), error.message()))
            .hint("`rookery config` prints a file to start from")
    })?;
    let mut assignments = Vec::new();
    for (name, value) in root.get_ref() {
        match value.get_ref() {
            // A table under the name of a plain key is a wrong value, not a section.
            DeValue::Table(section) if Key::by_path(name.get_ref()).is_none() => {
                for (inner, value) in section {
                    let found = format!("{}.{}", name.get_ref(), inner.get_ref());
                    let origin = Origin::File(path.to_owned(), line_of(inner.span().start));
                    assignments.push(assignment(&found, value.get_ref(), origin)?);
                }
            }
            value => {
                let origin = Origin::File(path.to_owned(), line_of(name.span().start));
                assignments.push(assignment(name.get_ref(), value, origin)?);
            }
        }
    }
    Ok(assignments)
}

fn assignment(path: &str, value: &DeValue<'_>, origin: Origin) -> Result<Assignment, Report> {
    let Some(key) = Key::by_path(path) else {
        let report = Report::usage(format!("unknown key {path:?} ({origin})"));
        let hint = match nearest(path, KEYS.iter().map(|key| key.path)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "`rookery config` prints every key".to_owned(),
        };
        return Err(report.hint(hint));
    };
    let raw = match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Raw::Number(number.as_str().to_owned()),
        DeValue::Boolean(on) => Raw::Switch(*on),
        // Items that are no strings become text that no list accepts, and the message shows them.
        DeValue::Array(items) => Raw::List(
            items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => text.to_string(),
                    other => format!("<{}>", other.type_str()),
                })
                .collect(),
        ),
        other => {
            return Err(Report::usage(format!("{path} ({origin}): no key takes a {}", other.type_str()))
                .hint("`rookery config` prints every key with its meaning and default"));
        }
    };
    Ok(Assignment { key, raw, origin })
}

/// The environment's assignments.
///
/// Other variables that begin with `ROOKERY_` are left alone: an orchestrator sets `ROOKERY_SERVICE_HOST` for a
/// service of that name. One that is a slip away from a key is refused.
pub fn from_environment(surroundings: &Surroundings) -> Result<Vec<Assignment>, Report> {
    let variables: Vec<(String, &Key)> = KEYS.iter().map(|key| (key.variable(), key)).collect();
    let mut assignments = Vec::new();
    for (name, value) in surroundings.environment.range("ROOKERY_".to_owned()..) {
        if !name.starts_with("ROOKERY_") {
            break;
        }
        if let Some((_, key)) = variables.iter().find(|(variable, _)| variable == name) {
            let origin = Origin::Environment(name.clone());
            assignments.push(Assignment { key, raw: Raw::Word(value.clone()), origin });
        } else if name != FILE_VARIABLE
            && let Some((meant, _)) = variables.iter().find(|(variable, _)| distance(name, variable) <= 2)
        {
            return Err(Report::usage(format!("unknown variable {name} in the environment"))
                .hint(format!("did you mean {meant}? If not, unset {name}")));
        }
    }
    Ok(assignments)
}
