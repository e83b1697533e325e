//! What a token grants: abilities by resource.

use std::{collections::BTreeMap, fmt, str::FromStr};

use kvspace_protocol::{
    capability::{Ability, Resource, Token},
    id::SpaceId,
};

use crate::KeyPath;

/// Asks whether a space is there, and for its frontier.
pub(crate) const SPACE_INFO: &str = "tinycloud.space/info";

/// What can be done with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KvAbility {
    /// Reads a value.
    Get,
    /// Writes a value.
    Put,
    /// Deletes a value.
    Delete,
    /// Lists keys.
    List,
    /// Reads the headers of a value.
    Head,
}

impl KvAbility {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Get, Self::Put, Self::Delete, Self::List, Self::Head];

    /// The ability as tokens spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => Ability::GET,
            Self::Put => Ability::PUT,
            Self::Delete => Ability::DEL,
            Self::List => Ability::LIST,
            Self::Head => Ability::METADATA,
        }
    }
}

/// Not the name of an ability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("abilities are get, put, delete, list and head")]
pub struct KvAbilityError;

impl FromStr for KvAbility {
    type Err = KvAbilityError;

    /// Reads the short name, the name a token spells, or the usual other word for it.
    fn from_str(text: &str) -> Result<Self, KvAbilityError> {
        match text.strip_prefix("tinycloud.kv/").unwrap_or(text) {
            "get" => Ok(Self::Get),
            "put" => Ok(Self::Put),
            "delete" | "del" | "rm" => Ok(Self::Delete),
            "list" | "ls" => Ok(Self::List),
            "head" | "metadata" => Ok(Self::Head),
            _ => Err(KvAbilityError),
        }
    }
}

impl fmt::Display for KvAbility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Abilities by resource, as a token lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<String, Vec<String>>);

impl Grants {
    /// Everything that an owner does in a space from day to day: values, the space's state, and delegations, their
    /// revocation included. Hosting is not part of it.
    #[must_use]
    pub fn everything(space: &SpaceId) -> Self {
        Self::kv(space, None, &KvAbility::ALL)
            .and(Resource::in_space(space, "space", None), SPACE_INFO)
            .and(Resource::in_space(space, "capabilities", None), Ability::CAPABILITIES_READ)
            .and(Resource::in_space(space, "delegation", None), Ability::REVOKE)
            .and(Resource::in_space(space, "delegation", None), Ability::STATUS)
    }

    /// These abilities on the values beneath a path, or on all of them. A path reaches itself and what follows it at a
    /// `/`: `docs` reaches `docs` and `docs/a`, not `docs2`.
    #[must_use]
    pub fn kv(space: &SpaceId, path: Option<&KeyPath>, abilities: &[KvAbility]) -> Self {
        let resource = Resource::in_space(space, "kv", path.map(KeyPath::as_str));
        abilities.iter().fold(Self::default(), |grants, ability| grants.and(resource.clone(), ability.as_str()))
    }

    /// All that a token grants in a space, to be passed on.
    #[must_use]
    pub fn of(token: &Token, space: &SpaceId) -> Self {
        let inside = token.capabilities().iter().filter(|held| held.resource.space() == Some(space));
        inside.fold(Self::default(), |grants, held| grants.and(held.resource.clone(), held.ability.as_str()))
    }

    pub(crate) fn and(mut self, resource: Resource, ability: &str) -> Self {
        let abilities = self.0.entry(resource.text().to_owned()).or_default();
        if !abilities.iter().any(|held| held == ability) {
            abilities.push(ability.to_owned());
        }
        self
    }

    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_map(self) -> BTreeMap<String, Vec<String>> {
        self.0
    }
}
