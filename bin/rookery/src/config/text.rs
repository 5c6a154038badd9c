//! The documented default file.

use std::fmt::Write;

use super::Config;
use super::keys::{Default, KEYS};
use super::layers::Surroundings;
use crate::network::Network;

const HEAD: &str = "\
# Configuration of rookery, with every key and its default.
#
# An option of the command line wins over the environment (ROOKERY_DATA_DIR, ROOKERY_READY__MIN_PEERS), the
# environment over this file, this file over the presets of the network. `rookery config show --origin` prints
# the values in force and where each came from; `rookery config check` checks this file.
#
# Lines that begin with `#` and a key show a default that depends on the network or on the machine.
";

/// The defaults of the main network as a commented file that parses to them.
pub fn default_toml() -> String {
    // The machine's own directories would make the text differ from user to user.
    let surroundings = Surroundings { data_home: "/home/you/.local/share".into(), ..Surroundings::nowhere() };
    let config = Config::defaults(Network::HandshakeMain, &surroundings);
    let mut out = HEAD.to_owned();
    let mut section = "";
    for key in KEYS {
        let name = match key.path.split_once('.') {
            Some((found, name)) => {
                if found != section {
                    section = found;
                    let _ = writeln!(out, "\n[{section}]");
                }
                name
            }
            None => key.path,
        };
        out.push('\n');
        for line in key.about {
            let _ = writeln!(out, "# {line}");
        }
        let mark = if key.default == Default::Fixed { "" } else { "#" };
        let _ = writeln!(out, "{mark}{name} = {}", (key.show)(&config));
    }
    out
}
