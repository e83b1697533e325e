//! Space ids: `tinycloud:<did suffix>:<name>`.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::Did;
use crate::limits::SPACE_ID_BYTES_MAX;

const SCHEME: &str = "tinycloud:";

/// The id of a space, in its canonical spelling. It names its owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId {
    text: Arc<str>,
    /// A part of the text; kept because every check of authority asks for it.
    owner: Did,
}

/// Why a text is no space id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpaceIdError {
    /// Not of the form `tinycloud:<did suffix>:<name>` in normal form.
    #[error("a space id reads tinycloud:<DID without did:>:<name>")]
    Syntax,
    /// Longer than the protocol takes.
    #[error("a space id has at most {SPACE_ID_BYTES_MAX} bytes")]
    TooLong,
}

impl SpaceId {
    /// The space `name` of `owner`.
    ///
    /// # Errors
    /// [`SpaceIdError`] when the name is empty or holds what a URI path may not.
    pub fn new(owner: &Did, name: &str) -> Result<Self, SpaceIdError> {
        if name.contains(':') {
            return Err(SpaceIdError::Syntax);
        }
        format!("{SCHEME}{}:{name}", owner.suffix()).parse()
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The owner: the root of authority.
    #[must_use]
    pub fn owner(&self) -> &Did {
        &self.owner
    }

    /// The last part, `default` or `public` for instance.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.rsplit_once(':').map_or("", |(_, name)| name)
    }
}

impl FromStr for SpaceId {
    type Err = SpaceIdError;

    fn from_str(text: &str) -> Result<Self, SpaceIdError> {
        if text.len() > SPACE_ID_BYTES_MAX {
            return Err(SpaceIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpaceIdError::Syntax)?;
        let (did, name) = rest.rsplit_once(':').ok_or(SpaceIdError::Syntax)?;
        if name.is_empty() || rest.contains('/') || !crate::uri::is_normal_path(rest) {
            return Err(SpaceIdError::Syntax);
        }
        let owner: Did = format!("did:{did}").parse().map_err(|_| SpaceIdError::Syntax)?;
        Ok(Self { text: format!("{SCHEME}{}:{name}", owner.suffix()).into(), owner })
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for SpaceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SpaceId {
    /// Reads the canonical spelling only, so that a space has one encoding.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let space: Self = text.parse().map_err(D::Error::custom)?;
        if *space.text != *text {
            return Err(D::Error::custom("not the canonical spelling of the space id"));
        }
        Ok(space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_names_its_owner() {
        let space: SpaceId =
            "tinycloud:pkh:eip155:1:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266:default".parse().expect("a space id");
        assert_eq!(space.owner().as_str(), "did:pkh:eip155:1:0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(space.name(), "default");
        assert_eq!(SpaceId::new(space.owner(), "default"), Ok(space));
    }

    #[test]
    fn what_is_no_space_is_refused() {
        for text in [
            "",
            "tinycloud:",
            "tinycloud:key:z6Mk:",
            "tinycloud:key:z6Mk/a:b",
            "tinycloud:key:z6Mk:a b",
            "tinycloud:key:z6Mk:a?b",
            "tinycloud:key:z6Mk:a%2f",
            "tinycloud:key:z6Mk:a#b",
            "other:key:z6Mk:a",
            "tinycloud:name",
        ] {
            assert!(text.parse::<SpaceId>().is_err(), "{text}");
        }
    }
}
