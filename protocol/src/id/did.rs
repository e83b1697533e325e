//! Decentralised identifiers, as far as a space needs them: did:key and did:pkh, both without a network.

use std::{fmt, str::FromStr, sync::Arc};

use cid::multibase::{self, Base};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha3::{Digest, Keccak256};

const ED25519_PUB: [u8; 2] = [0xed, 0x01];

/// A DID without fragment, in its canonical spelling: an Ethereum address carries its EIP-55 checksum.
///
/// Equality of two `Did`s is equality of what they name; other methods are compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Did(Arc<str>);

/// Why a text is no DID that a space can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DidError {
    /// Does not read `did:<method>:<id>`.
    #[error("not a DID")]
    Syntax,
    /// A `did:pkh:eip155` without a chain id above 0 or an address of 40 hex digits.
    #[error("not a chain id and Ethereum address")]
    Eip155,
}

impl Did {
    /// The did:key of an Ed25519 public key.
    #[must_use]
    pub fn from_ed25519(key: &[u8; 32]) -> Self {
        let mut bytes = [0u8; 34];
        bytes[..2].copy_from_slice(&ED25519_PUB);
        bytes[2..].copy_from_slice(key);
        Self(format!("did:key:{}", multibase::encode(Base::Base58Btc, bytes)).into())
    }

    /// The did:pkh of an Ethereum address on a chain.
    #[must_use]
    pub fn from_eip155(chain: u64, address: &[u8; 20]) -> Self {
        Self(format!("did:pkh:eip155:{chain}:{}", checksum(address)).into())
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text after `did:`.
    #[must_use]
    pub fn suffix(&self) -> &str {
        &self.0["did:".len()..]
    }

    /// The Ed25519 key of a did:key, `None` for any other DID or curve.
    #[must_use]
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        let text = self.0.strip_prefix("did:key:")?;
        let (base, bytes) = multibase::decode(text).ok()?;
        if base != Base::Base58Btc || !bytes.starts_with(&ED25519_PUB) {
            return None;
        }
        bytes[2..].try_into().ok()
    }

    /// The chain id and address of a did:pkh:eip155.
    #[must_use]
    pub fn eip155(&self) -> Option<(u64, [u8; 20])> {
        let rest = self.0.strip_prefix("did:pkh:eip155:")?;
        let (chain, address) = rest.split_once(':')?;
        Some((chain.parse().ok()?, hex20(address.strip_prefix("0x")?)?))
    }
}

impl FromStr for Did {
    type Err = DidError;

    /// Reads a DID or a DID URL; the fragment is dropped.
    fn from_str(text: &str) -> Result<Self, DidError> {
        let text = text.split_once('#').map_or(text, |(did, _)| did);
        let suffix = text.strip_prefix("did:").ok_or(DidError::Syntax)?;
        let (method, id) = suffix.split_once(':').ok_or(DidError::Syntax)?;
        let plain = |b: u8| b.is_ascii_graphic() && !b"/?\"<>\\^`{|}".contains(&b);
        if method.is_empty() || id.is_empty() || !text.bytes().all(plain) {
            return Err(DidError::Syntax);
        }
        let Some(rest) = suffix.strip_prefix("pkh:eip155:") else {
            return Ok(Self(text.into()));
        };
        let (chain, address) = rest.split_once(':').ok_or(DidError::Eip155)?;
        let canonical_chain = chain.bytes().all(|b| b.is_ascii_digit()) && !chain.starts_with('0');
        let chain = chain.parse().ok().filter(|_| canonical_chain).ok_or(DidError::Eip155)?;
        let address = address.strip_prefix("0x").and_then(hex20).ok_or(DidError::Eip155)?;
        Ok(Self::from_eip155(chain, &address))
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Did {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Did {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The mixed-case spelling of an address (EIP-55), with `0x`.
fn checksum(address: &[u8; 20]) -> String {
    let lower: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = Keccak256::digest(lower.as_bytes());
    let cased = lower.char_indices().map(|(i, c)| {
        let nibble = if i % 2 == 0 { hash[i / 2] >> 4 } else { hash[i / 2] & 0xf };
        if nibble >= 8 { c.to_ascii_uppercase() } else { c }
    });
    std::iter::once("0x".to_owned()).chain(cased.map(String::from)).collect()
}

fn hex20(text: &str) -> Option<[u8; 20]> {
    if text.len() != 40 || !text.is_ascii() {
        return None;
    }
    let mut out = [0u8; 20];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    text.bytes().all(|b| b.is_ascii_hexdigit()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethereum_address_is_the_same_in_any_case() {
        let lower: Did = "did:pkh:eip155:1:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266".parse().expect("a DID");
        assert_eq!(lower.as_str(), "did:pkh:eip155:1:0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        let other: Did = "did:pkh:eip155:10:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266".parse().expect("a DID");
        assert_ne!(lower, other);
    }

    #[test]
    fn a_fragment_is_dropped_and_the_key_comes_back() {
        let key = [7u8; 32];
        let did = Did::from_ed25519(&key);
        let url = format!("{did}#{}", &did.as_str()[8..]);
        assert_eq!(url.parse::<Did>().expect("a DID"), did);
        assert_eq!(did.ed25519(), Some(key));
    }

    #[test]
    fn what_is_no_did_is_refused() {
        for text in ["", "did:", "did:key", "did:key:", "did:pkh:eip155:0:0x00", "did:pkh:eip155:1:0xg", "did:a:b c"] {
            assert!(text.parse::<Did>().is_err(), "{text}");
        }
    }
}
