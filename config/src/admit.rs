//! Whose spaces a node hosts.

use std::collections::BTreeSet;

use kvspace_protocol::id::Did;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Whose spaces may be created at this node. Written `"any"`, `"none"`, or a list of DIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admit {
    /// Everybody's.
    Any,
    /// Nobody's.
    None,
    /// Those of these owners.
    Owners(BTreeSet<Did>),
}

impl Admit {
    /// Whether a space of this owner may be created.
    #[must_use]
    pub fn admits(&self, owner: &Did) -> bool {
        match self {
            Self::Any => true,
            Self::None => false,
            Self::Owners(owners) => owners.contains(owner),
        }
    }

    fn owners(texts: &[String]) -> Result<Self, String> {
        let did = |text: &String| {
            let text = text.trim();
            text.parse()
                .map_err(|why| format!("{text:?} is not an owner: {why}; write \"any\", \"none\" or a list of DIDs"))
        };
        texts.iter().map(did).collect::<Result<_, _>>().map(Self::Owners)
    }
}

impl Serialize for Admit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::None => serializer.serialize_str("none"),
            Self::Owners(owners) => serializer.collect_seq(owners.iter().map(Did::as_str)),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "\"any\", \"none\" or a list of DIDs")]
enum Written {
    Word(String),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for Admit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "any" => return Ok(Self::Any),
            Written::Word(word) if word == "none" => return Ok(Self::None),
            Written::Word(list) => list.split(',').map(str::to_owned).collect(),
            Written::List(list) => list,
        };
        Self::owners(&texts).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_admitted_in_any_spelling_and_others_are_not() {
        let written = "admit = [\"did:pkh:eip155:1:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266\"]";
        let spaces: crate::Spaces = toml::from_str(written).expect("a list of owners");
        let owner = "did:pkh:eip155:1:0xF39FD6E51AAD88F6F4CE6AB8827279CFFFB92266".parse().expect("a DID");
        assert!(spaces.admit.admits(&owner));
        assert!(!spaces.admit.admits(&Did::from_ed25519(&[1; 32])));
        assert!(Admit::Any.admits(&owner) && !Admit::None.admits(&owner));
    }
}
