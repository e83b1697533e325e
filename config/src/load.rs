//! Reading a configuration: file, then environment, then flags; the last one wins.

use std::{fs, path::PathBuf};

use toml::{Table, Value};

use crate::{Config, ConfigError, validate::validate};

const PREFIX: &str = "KVSPACE_";

/// Where options come from. The process hands in its environment, so that reading is a function of its arguments.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables; those not named `KVSPACE_<SECTION>__<KEY>` are passed over. `HOME` resolves `~`.
    pub environment: Vec<(String, String)>,
    /// `section.key` and value of each flag that was given.
    pub flags: Vec<(&'static str, Value)>,
}

/// Reads the configuration from its sources, on top of the defaults; paths come out resolved.
///
/// # Errors
/// [`ConfigError`] names the source and the option that cannot be used.
pub fn load(sources: Sources) -> Result<Config, ConfigError> {
    let mut merged = defaults();
    if let Some(path) = sources.file {
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        from_file(&mut merged, &path.display().to_string(), &text)?;
    }
    for (name, text) in &sources.environment {
        from_environment(&mut merged, name, text)?;
    }
    for (key, value) in sources.flags {
        let (section, option) = key.split_once('.').unwrap_or((key, ""));
        set(&mut merged, "flags", section, option, value)?;
    }
    let mut config = typed(&merged).map_err(|message| invalid("configuration", "", message))?;
    validate(&config)?;
    let home = sources.environment.into_iter().find(|(name, value)| name == "HOME" && !value.is_empty());
    config.node.resolve(home.map(|(_, value)| PathBuf::from(value)).as_deref());
    Ok(config)
}

fn defaults() -> Table {
    Table::try_from(Config::default()).expect("every default is a TOML value")
}

fn typed(table: &Table) -> Result<Config, String> {
    table.clone().try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn from_file(merged: &mut Table, origin: &str, text: &str) -> Result<(), ConfigError> {
    let syntax = |error: toml::de::Error| ConfigError::Syntax { origin: origin.into(), message: error.to_string() };
    for (section, options) in text.parse::<Table>().map_err(syntax)? {
        let Value::Table(options) = options else {
            return Err(unknown(merged, origin, &section, None));
        };
        if options.is_empty() && !merged.contains_key(&section) {
            return Err(unknown(merged, origin, &section, None));
        }
        for (option, value) in options {
            set(merged, origin, &section, &option, value)?;
        }
    }
    Ok(())
}

fn from_environment(merged: &mut Table, name: &str, text: &str) -> Result<(), ConfigError> {
    let Some((section, option)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
        return Ok(());
    };
    let (section, option) = (section.to_ascii_lowercase(), option.to_ascii_lowercase());
    let default = merged.get(&section).and_then(|options| options.get(&option));
    let value = default.map_or_else(|| Value::String(text.into()), |default| from_text(default, text));
    set(merged, name, &section, &option, value)
}

/// Reads a variable as the kind of value that the option has: TOML where it parses, else text; a list may be written
/// with commas.
fn from_text(default: &Value, text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match (default, parsed) {
        (Value::String(_), Some(value @ (Value::String(_) | Value::Array(_)))) => value,
        (Value::String(_), _) => Value::String(text.into()),
        (Value::Array(_), Some(value @ Value::Array(_))) => value,
        (Value::Array(_), _) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.trim_matches('"').into())).collect())
        }
        (_, parsed) => parsed.unwrap_or_else(|| Value::String(text.into())),
    }
}

/// Puts one option in, if it exists and its value can be used.
fn set(merged: &mut Table, origin: &str, section: &str, option: &str, value: Value) -> Result<(), ConfigError> {
    let known = merged.get(section).and_then(Value::as_table).is_some_and(|options| options.contains_key(option));
    if !known {
        return Err(unknown(merged, origin, section, Some(option)));
    }
    if let Some(Value::Table(options)) = merged.get_mut(section) {
        options.insert(option.into(), value);
    }
    typed(merged).map_err(|message| invalid(origin, &format!("{section}.{option}"), message)).map(|_| ())
}

fn invalid(origin: &str, key: &str, message: String) -> ConfigError {
    ConfigError::Invalid { origin: origin.into(), key: key.into(), message }
}

fn unknown(known: &Table, origin: &str, section: &str, option: Option<&str>) -> ConfigError {
    let key = option.map_or_else(|| section.to_owned(), |option| format!("{section}.{option}"));
    let nearest_section = nearest(section, known.keys());
    let options = known.get(nearest_section).and_then(Value::as_table);
    let hint = match (option, options) {
        (Some(option), Some(options)) if nearest_section == section => {
            format!("the nearest one in [{section}] is `{section}.{}`", nearest(option, options.keys()))
        }
        _ => format!("the nearest section is [{nearest_section}]"),
    };
    ConfigError::Unknown { origin: origin.into(), key, hint }
}

fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a String>) -> &'a str {
    names.min_by_key(|name| distance(wanted, name)).map_or("", String::as_str)
}

/// How many characters must be put in, taken out or changed to make one text from the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Admit, EXAMPLE, LogFormat};

    fn with_environment(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(Sources { environment, ..Sources::default() })
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("kvspace.toml");
        fs::write(&path, text).expect("a file");
        (dir, path)
    }

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let (_dir, path) = file(text);
        load(Sources { file: Some(path), ..Sources::default() })
    }

    #[test]
    fn the_commented_file_holds_every_option_with_its_default() {
        let table: Table = EXAMPLE.parse().expect("valid TOML");
        assert_eq!(table, defaults());
        let config: Config = toml::from_str(EXAMPLE).expect("the options of Config");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn each_option_of_the_commented_file_has_an_explanation() {
        let lines: Vec<&str> = EXAMPLE.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with('#')) {
            assert!(pair[0].starts_with("# "), "{}", pair[1]);
        }
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let (_dir, path) = file("[http]\nlisten = \"127.0.0.1:1\"\ncors = false\nconnections_max = 7\n");
        let environment = vec![
            ("KVSPACE_HTTP__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
            ("KVSPACE_HTTP__CONNECTIONS_MAX".to_owned(), "8".to_owned()),
        ];
        let flags = vec![("http.listen", Value::String("127.0.0.1:3".into()))];
        let config = load(Sources { file: Some(path), environment, flags }).expect("a configuration");
        assert_eq!(config.http.listen.port(), 3);
        assert_eq!(config.http.connections_max, 8);
        assert!(!config.http.cors);
        assert_eq!(config.http.header_timeout_ms, 10_000);
    }

    #[test]
    fn environment_values_take_the_kind_of_their_option() {
        let config = with_environment(&[
            ("KVSPACE_NODE__DATA_DIR", "123"),
            ("KVSPACE_HTTP__CORS", "false"),
            ("KVSPACE_HTTP__BODY_BYTES_MAX", "1_000"),
            ("KVSPACE_NETWORK__LISTEN", "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2"),
            ("KVSPACE_NETWORK__PEERS", "[\"/dns/a/tcp/1\"]"),
            ("KVSPACE_DISCOVERY__MDNS", "false"),
            ("KVSPACE_SPACES__ADMIT", "did:key:z6MkA,did:key:z6MkB"),
            ("KVSPACE_LOG__FORMAT", "json"),
            ("KVSPACE_KEY", "another tool's"),
        ])
        .expect("a configuration");
        assert_eq!(config.node.key_file, PathBuf::from("123/node.key"));
        assert!(!config.http.cors);
        assert_eq!(config.http.body_bytes_max, 1_000);
        assert_eq!(config.network.listen, ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"]);
        assert_eq!(config.network.peers, ["/dns/a/tcp/1"]);
        assert!(!config.discovery.mdns);
        let none = with_environment(&[("KVSPACE_NETWORK__LISTEN", "")]).expect("a configuration");
        assert!(none.network.listen.is_empty(), "no address at all");
        assert!(matches!(config.spaces.admit, Admit::Owners(owners) if owners.len() == 2));
        assert_eq!(config.log.format, LogFormat::Json);
    }

    #[test]
    fn an_unknown_option_is_named_with_its_neighbour() {
        let error = with_file("[http]\nlisen = \"127.0.0.1:1\"\n").expect_err("no such option").to_string();
        assert!(error.contains("`http.lisen`") && error.contains("`http.listen`"), "{error}");
        let error = with_file("[htp]\nlisten = \"127.0.0.1:1\"\n").expect_err("no such section").to_string();
        assert!(error.contains("`htp.listen`") && error.contains("[http]"), "{error}");
        let error = with_file("listen = 1\n").expect_err("no section").to_string();
        assert!(error.contains("`listen`"), "{error}");
        let error = with_environment(&[("KVSPACE_STORAGE__SEGMENT", "1")]).expect_err("no such option").to_string();
        assert!(error.contains("KVSPACE_STORAGE__SEGMENT") && error.contains("storage.segment_bytes"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_or_range_names_its_option() {
        for (text, key) in [
            ("[http]\nlisten = \"somewhere\"\n", "http.listen"),
            ("[http]\nconnections_max = -1\n", "http.connections_max"),
            ("[http]\nheader_timeout_ms = 0\n", "http.header_timeout_ms"),
            ("[spaces]\nadmit = \"everyone\"\n", "spaces.admit"),
            ("[spaces]\nadmit = 7\n", "spaces.admit"),
            ("[storage]\nsegment_bytes = 4096\n", "storage.segment_bytes"),
            ("[memory]\nbody_bytes_max = 1\n", "memory.body_bytes_max"),
            ("[log]\nformat = \"xml\"\n", "log.format"),
            ("[network]\nlisten = [\"127.0.0.1:1\"]\n", "network.listen"),
            ("[network]\npeers = [\"/ip4/127.0.0.1\"]\n", "network.peers"),
            ("[network]\nlisten = []\npeers = [\"/ip4/127.0.0.1/tcp/1\"]\n", "network.peers"),
            ("[network]\ncompare_interval_s = 0\n", "network.compare_interval_s"),
            ("[network]\npending_wait_ms = 0\n", "network.pending_wait_ms"),
        ] {
            let error = with_file(text).expect_err(text).to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn what_is_not_toml_and_what_cannot_be_read_is_said() {
        assert!(matches!(with_file("[http"), Err(ConfigError::Syntax { .. })));
        let file = Some(PathBuf::from("/nowhere/kvspace.toml"));
        assert!(matches!(load(Sources { file, ..Sources::default() }), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn data_lies_beneath_home_or_else_here() {
        let config = with_environment(&[("HOME", "/home/ann")]).expect("a configuration");
        assert_eq!(config.node.data_dir, PathBuf::from("/home/ann/.local/share/kvspace"));
        assert_eq!(config.node.key_file, PathBuf::from("/home/ann/.local/share/kvspace/node.key"));
        let config = with_environment(&[]).expect("a configuration");
        assert_eq!(config.node.data_dir, PathBuf::from("./kvspace-data"));
        let config = with_environment(&[("KVSPACE_NODE__KEY_FILE", "/etc/kvspace/key")]).expect("a configuration");
        assert_eq!(config.node.key_file, PathBuf::from("/etc/kvspace/key"));
    }
}
