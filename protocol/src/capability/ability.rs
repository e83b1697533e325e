//! What may be done: `<namespace>/<name>`.

use std::{fmt, str::FromStr, sync::Arc};

/// Spellings that mean another ability.
const ALIASES: [(&str, &str); 3] = [
    ("tinycloud.kv/delete", "tinycloud.kv/del"),
    ("tinycloud.sql/select", "tinycloud.sql/read"),
    ("tinycloud.duckdb/select", "tinycloud.duckdb/read"),
];

/// An ability that holds others of its namespace. There is none for `tinycloud.kv`, on purpose.
const WILDCARDS: [&str; 2] = ["tinycloud.sql/*", "tinycloud.duckdb/*"];

/// An ability, in the spelling of its token.
///
/// Two spellings of one ability are two values; [`Ability::canonical`] is the same for both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ability(Arc<str>);

/// Why a text is no ability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an ability reads <namespace>/<name>, of letters, digits and -_.+*")]
pub struct AbilityError;

impl Ability {
    /// Reads the value of a key.
    pub const GET: &str = "tinycloud.kv/get";
    /// Writes the value of a key.
    pub const PUT: &str = "tinycloud.kv/put";
    /// Deletes a key; `tinycloud.kv/delete` is the same.
    pub const DEL: &str = "tinycloud.kv/del";
    /// Lists keys.
    pub const LIST: &str = "tinycloud.kv/list";
    /// Reads the headers of a key.
    pub const METADATA: &str = "tinycloud.kv/metadata";
    /// Hosts a space.
    pub const HOST: &str = "tinycloud.space/host";
    /// Reads the delegations of a space.
    pub const CAPABILITIES_READ: &str = "tinycloud.capabilities/read";
    /// Revokes a delegation.
    pub const REVOKE: &str = "tinycloud.delegation/revoke";
    /// Asks for the state of a delegation.
    pub const STATUS: &str = "tinycloud.delegation/status";

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text with an alias resolved: what the ability means.
    #[must_use]
    pub fn canonical(&self) -> &str {
        ALIASES.iter().find(|(alias, _)| *alias == &*self.0).map_or(&self.0, |(_, meaning)| meaning)
    }

    /// The part before `/`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.split().0
    }

    /// The part after `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.split().1
    }

    /// Whether a grant of this ability suffices for `required`: they mean the same, or this one holds that one.
    #[must_use]
    pub fn covers(&self, required: &Self) -> bool {
        let (held, required_text) = (self.canonical(), required.canonical());
        held == required_text
            || (held == "tinycloud.sql/admin" && required_text == "tinycloud.sql/schema")
            || (WILDCARDS.contains(&held) && self.namespace() == required.namespace())
    }

    fn split(&self) -> (&str, &str) {
        self.0.split_once('/').expect("checked when the ability was parsed")
    }
}

impl FromStr for Ability {
    type Err = AbilityError;

    fn from_str(text: &str) -> Result<Self, AbilityError> {
        let (namespace, name) = text.split_once('/').ok_or(AbilityError)?;
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+*".contains(&byte))
        };
        if plain(namespace) && plain(name) { Ok(Self(text.into())) } else { Err(AbilityError) }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ability(text: &str) -> Ability {
        text.parse().expect("an ability")
    }

    #[test]
    fn an_alias_means_what_it_stands_for() {
        assert_eq!(ability("tinycloud.kv/delete").canonical(), Ability::DEL);
        assert!(ability("tinycloud.kv/delete").covers(&ability("tinycloud.kv/del")));
        assert!(ability("tinycloud.kv/del").covers(&ability("tinycloud.kv/delete")));
        assert_ne!(ability("tinycloud.kv/del"), ability("tinycloud.kv/delete"));
    }

    #[test]
    fn kv_has_no_wildcard() {
        assert!(!ability("tinycloud.kv/*").covers(&ability("tinycloud.kv/get")));
        assert!(ability("tinycloud.kv/*").covers(&ability("tinycloud.kv/*")));
    }

    #[test]
    fn databases_have_a_wildcard_of_their_own() {
        assert!(ability("tinycloud.sql/*").covers(&ability("tinycloud.sql/select")));
        assert!(!ability("tinycloud.sql/*").covers(&ability("tinycloud.duckdb/read")));
        assert!(ability("tinycloud.sql/admin").covers(&ability("tinycloud.sql/schema")));
        assert!(!ability("tinycloud.sql/admin").covers(&ability("tinycloud.sql/read")));
        assert!(!ability("tinycloud.sql/read").covers(&ability("tinycloud.sql/*")));
    }

    #[test]
    fn what_is_no_ability_is_refused() {
        for text in ["", "/", "a/", "/a", "a", "a/b/c", "a b/c", "a/b'", "é/a", "a/b\n"] {
            assert_eq!(text.parse::<Ability>(), Err(AbilityError), "{text}");
        }
    }
}
