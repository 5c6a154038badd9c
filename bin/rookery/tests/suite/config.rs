//! Layers, origins, and what a wrong configuration is told.

use std::path::PathBuf;
use std::time::Duration;

use rookery::config::keys::{Default, KEYS};
use rookery::config::layers::{Origin, Surroundings};
use rookery::config::text::default_toml;
use rookery::config::value::Raw;
use rookery::config::{Config, Settled};
use rookery::exit::{Exit, Report};
use rookery::network::Network;

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    Surroundings {
        environment: variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        data_home: PathBuf::from("/home/you/.local/share"),
        files: Vec::new(),
    }
}

fn load(file: &str, variables: &[(&str, &str)], flags: Vec<(&'static str, Raw)>) -> Result<Settled, Report> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    Settled::load(&surroundings(variables), Some(path), flags)
}

fn refused(file: &str) -> Report {
    let report = Config::from_toml(file).unwrap_err();
    assert_eq!(report.exit, Exit::Usage);
    assert!(report.hint.is_some(), "{report}");
    report
}

#[test]
fn each_layer_wins_over_those_below_it_and_is_named() {
    let file = "network = \"handshake-testnet\"\nmax_outbound = 2\nmax_inbound = 3\nlog = \"warn\"\n";
    let variables = [("ROOKERY_MAX_INBOUND", "4"), ("ROOKERY_LOG", "debug")];
    let flags = vec![("log", Raw::Word("trace".into()))];
    let settled = load(file, &variables, flags).unwrap();
    let config = &settled.config;
    assert_eq!((config.max_outbound, config.max_inbound, &*config.log), (2, 4, "trace"));

    let origin = |path| settled.origin(path).unwrap().clone();
    assert!(matches!(origin("max_outbound"), Origin::File(path, 2) if path.ends_with("config.toml")));
    assert_eq!(origin("max_inbound"), Origin::Environment("ROOKERY_MAX_INBOUND".into()));
    assert_eq!(origin("log"), Origin::Flag("log"));
    assert_eq!(origin("bootstrap"), Origin::Preset(Network::HandshakeTestnet));
    assert_eq!(origin("metrics"), Origin::Default);
    assert_eq!(origin("log").to_string(), "--log");
}

#[test]
fn the_network_presets_from_whichever_layer_names_it_and_others_win_over_the_preset() {
    let flags = vec![("network", Raw::Word("handshake-regtest".into()))];
    let settled = load("network = \"handshake-main\"\n", &[], flags).unwrap();
    assert!(!settled.config.bootstrap);
    assert_eq!(settled.config.ready.max_tip_age, None);
    assert_eq!(settled.config.chain_dir(), PathBuf::from("/home/you/.local/share/rookery/handshake-regtest"));

    let settled = load("bootstrap = false\n[ready]\nmax_tip_age = \"2h\"\n", &[], Vec::new()).unwrap();
    assert!(!settled.config.bootstrap);
    assert_eq!(settled.config.ready.max_tip_age, Some(Duration::from_secs(7_200)));
}

#[test]
fn sections_are_reached_from_the_environment() {
    let settled = load("", &[("ROOKERY_READY__MIN_PEERS", "3")], Vec::new()).unwrap();
    assert_eq!(settled.config.ready.min_peers, 3);
}

#[test]
fn peers_get_the_network_s_port_and_only_means_only() {
    let variables = [("ROOKERY_PEER", "seed.example.org, 192.0.2.7:5")];
    let config = load("listen = [\"0.0.0.0\", \"[::1]:7\"]\n", &variables, Vec::new()).unwrap().config;
    assert_eq!(config.named_peers().named, ["seed.example.org:12038", "192.0.2.7:5"]);
    assert!(!config.named_peers().only);
    let listen: Vec<_> = config.listen_addresses().iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:12038", "[::1]:7"]);

    let flags = vec![("connect", Raw::Words(vec!["::1".into()]))];
    let config = load("network = \"handshake-simnet\"\n", &variables, flags).unwrap().config;
    assert_eq!(config.named_peers().named, ["[::1]:15038"]);
    assert!(config.named_peers().only);
}

#[test]
fn a_slip_is_met_with_the_nearest_name_and_its_line() {
    let report = refused("\n\nnetwrok = \"handshake-main\"\n");
    assert_eq!(report.what, "unknown key \"netwrok\" (config.toml, line 3)");
    assert_eq!(report.hint.unwrap(), "did you mean \"network\"?");
    let report = refused("[ready]\nmin_peer = 1\n");
    assert!(report.what.contains("line 2") && report.hint.unwrap().contains("ready.min_peers"));
    assert!(refused("colour = 1\n").hint.unwrap().contains("rookery config"));
}

#[test]
fn a_wrong_value_is_met_with_what_was_expected() {
    for (file, expected) in [
        ("network = \"bitcoin\"", "expected handshake-main"),
        ("network = 3", "got 3"),
        ("max_outbound = 0", "a whole number from 1 to 64"),
        ("max_outbound = \"8\"", "got \"8\""),
        ("max_inbound = -1", "got -1"),
        ("max_inbound = 0x10", "no key takes"),
        ("bootstrap = \"yes\"", "expected true or false"),
        ("peer = \"192.0.2.7\"", "expected a list"),
        ("peer = [1]", "<integer>"),
        ("peer = [\"key@host\"]", "KEY@"),
        ("listen = [\"localhost\"]", "IP:PORT"),
        ("metrics = \"9332\"", "IP:PORT"),
        ("log = \"inof\"", "expected a level"),
        ("log = \"info,rookery=loud\"", "expected a level"),
        ("log = \"rookery=\"", "expected a level"),
        ("log_format = \"xml\"", "auto, pretty, plain or json"),
        ("data_dir = \"~/x\"", "~ is not expanded"),
        ("ready = 1", "unknown key"),
        ("[ready]\nmax_tip_age = \"12\"", "12h"),
        ("[network]\nname = 1", "no key takes a table"),
        ("max_inbound = 1.5", "no key takes a float"),
        ("a = [", "line 1"),
        ("log = \"a\"\nlog = \"b\"", "line 2"),
    ] {
        let report = refused(file);
        assert!(report.what.contains(expected), "{file}: {report}");
    }
}

#[test]
fn a_layer_is_checked_also_where_a_higher_one_overrides_it() {
    let flags = vec![("log", Raw::Word("info".into()))];
    assert!(load("log = \"\"\n", &[], flags).is_err());
}

#[test]
fn slips_in_the_environment_are_refused_and_other_people_s_variables_are_not() {
    let report = load("", &[("ROOKERY_NETWROK", "handshake-main")], Vec::new()).unwrap_err();
    assert!(report.hint.unwrap().contains("ROOKERY_NETWORK"));
    load("", &[("ROOKERY_SERVICE_HOST", "10.0.0.1"), ("ROOKERY_PORT", "tcp://10.0.0.1:1")], Vec::new())
        .unwrap();
}

#[test]
fn the_first_file_that_exists_is_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let [absent, user, system] = ["absent", "user", "system"].map(|name| dir.path().join(name));
    std::fs::write(&user, "max_outbound = 2\n").unwrap();
    std::fs::write(&system, "max_outbound = 3\nmax_inbound = 3\n").unwrap();
    let mut around = surroundings(&[]);
    around.files = vec![absent.clone(), user, system.clone()];
    let config = Settled::load(&around, None, Vec::new()).unwrap().config;
    assert_eq!((config.max_outbound, config.max_inbound), (2, 20));
    around.environment.insert("ROOKERY_CONFIG".into(), system.to_str().unwrap().into());
    assert_eq!(Settled::load(&around, None, Vec::new()).unwrap().config.max_outbound, 3);
    let report = Settled::load(&around, Some(absent), Vec::new()).unwrap_err();
    assert!(report.what.contains("there is no configuration file"));
}

#[test]
fn a_file_that_is_no_configuration_is_not_read_to_its_end() {
    assert!(load(&"#".repeat(65 * 1024), &[], Vec::new()).unwrap_err().what.contains("longer than"));
}

#[test]
fn without_a_home_a_data_directory_must_be_named() {
    let around = Surroundings::nowhere();
    assert!(Settled::load(&around, None, Vec::new()).unwrap_err().what.contains("home"));
    let flags = vec![("data_dir", Raw::Word("/data".into()))];
    assert_eq!(Settled::load(&around, None, flags).unwrap().config.data_dir, PathBuf::from("/data"));
}

#[test]
fn the_default_file_parses_to_the_defaults_as_it_is_and_with_every_line_in_force() {
    let text = default_toml();
    let nowhere = Surroundings::nowhere();
    assert_eq!(Config::from_toml(&text).unwrap(), Config::defaults(Network::HandshakeMain, &nowhere));

    let mut all = text.clone();
    for key in KEYS.iter().filter(|key| key.default != Default::Fixed) {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(all.contains(&format!("\n#{name} = ")), "{name}");
        all = all.replace(&format!("\n#{name} = "), &format!("\n{name} = "));
    }
    let expected = Config::defaults(Network::HandshakeMain, &surroundings(&[]));
    assert_eq!(Config::from_toml(&all).unwrap(), expected);
    assert!(text.lines().all(|line| line.len() <= 110));
}

#[test]
fn every_shown_value_is_read_back() {
    let file = "connect = [\"a\", \"[::1]:3\"]\nmetrics = \"127.0.0.1:9\"\nlog = \"info,x=debug\"\n";
    let shown: String =
        Settled::new(&surroundings(&[]), &rookery::config::layers::from_toml(file, &PathBuf::new()).unwrap())
            .unwrap()
            .rows()
            .into_iter()
            .map(|(key, value, _)| format!("{key} = {value}\n"))
            .collect();
    // Dotted keys are TOML's other spelling of a section.
    assert_eq!(Config::from_toml(&shown).unwrap().log, "info,x=debug");
    assert_eq!(Config::from_toml(&shown).unwrap().named_peers().named, ["a:12038", "[::1]:3"]);
}
