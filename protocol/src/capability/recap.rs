//! The ReCap: capabilities in the last resource of a SIWE message, and in words at the end of its statement.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cid::multibase::Base;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Ability, Capability, Caveats, Resource, TokenError, json};
use crate::{id::Address, uri};

pub(super) const PREFIX: &str = "urn:recap:";
const WORDS: &str = "I further authorize the stated URI to perform the following actions on my behalf:";

/// What the resource holds. Members and maps in this order are the canonical JSON (RFC 8785): their names are ASCII.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recap {
    att: BTreeMap<String, BTreeMap<String, Vec<Map<String, Value>>>>,
    prf: Vec<String>,
}

impl Recap {
    /// A ReCap of these abilities by resource, without caveats.
    pub(super) fn new(capabilities: &BTreeMap<String, Vec<String>>, proofs: &[Address]) -> Self {
        let none = || vec![Map::new()];
        let abilities = |names: &Vec<String>| names.iter().map(|name| (name.clone(), none())).collect();
        let att = capabilities.iter().map(|(resource, names)| (resource.clone(), abilities(names))).collect();
        let base58 = |proof: &Address| proof.cid().to_string_of_base(Base::Base58Btc).expect("a CIDv1 has every base");
        Self { att, prf: proofs.iter().map(base58).collect() }
    }

    /// Reads the resource; its JSON is canonical or refused.
    pub(super) fn from_resource(resource: &str) -> Result<Self, TokenError> {
        let text = resource.strip_prefix(PREFIX).ok_or(TokenError::RecapPlace)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Base64("the ReCap"))?;
        let recap: Self = json::read("the ReCap", &bytes)?;
        if recap.to_json() != bytes {
            return Err(TokenError::NotCanonical("the ReCap"));
        }
        Ok(recap)
    }

    /// Writes the resource.
    pub(super) fn to_resource(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.to_json()))
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys are JSON")
    }

    /// The capabilities, ascending by resource and ability.
    pub(super) fn capabilities(&self) -> Result<Vec<Capability>, TokenError> {
        let mut capabilities = Vec::new();
        for (resource, abilities) in &self.att {
            if !uri::is_uri(resource) {
                return Err(TokenError::Field("att"));
            }
            for (ability, caveats) in abilities {
                if caveats.len() != 1 || !caveats[0].is_empty() {
                    return Err(TokenError::Caveats);
                }
                let (resource, ability) = (Resource::parse(resource), ability.parse()?);
                capabilities.push(Capability { resource, ability, caveats: Caveats::default() });
            }
        }
        Ok(capabilities)
    }

    /// The proofs, as they stand. Only base58btc is known to wallets, so only it is accepted.
    pub(super) fn proofs(&self) -> Result<Vec<Address>, TokenError> {
        let read = |text: &String| match text.strip_prefix('z') {
            Some(_) => Address::from_proof(text).map_err(|_| TokenError::Proof),
            None => Err(TokenError::Proof),
        };
        self.prf.iter().map(read).collect()
    }
}

/// What the capabilities say in words: one numbered item for each resource and namespace.
pub(super) fn words(capabilities: &[Capability]) -> String {
    let mut items: BTreeMap<(&str, &str), Vec<&Ability>> = BTreeMap::new();
    for capability in capabilities {
        let item = (capability.resource.text(), capability.ability.namespace());
        items.entry(item).or_default().push(&capability.ability);
    }
    let mut text = WORDS.to_owned();
    for (number, ((resource, namespace), abilities)) in items.iter().enumerate() {
        let names: Vec<String> = abilities.iter().map(|ability| format!("'{}'", ability.name())).collect();
        write!(text, " ({}) '{namespace}': {} for '{resource}'.", number + 1, names.join(", "))
            .expect("writing to a string does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recap(json: &str) -> Result<Recap, TokenError> {
        Recap::from_resource(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json)))
    }

    #[test]
    fn words_number_one_item_for_each_resource_and_namespace() {
        let json = r#"{"att":{"a:1":{"x/b":[{}],"x/c":[{}],"y/a":[{}]},"a:2":{"x/b":[{}]}},"prf":[]}"#;
        let capabilities = recap(json).and_then(|recap| recap.capabilities()).expect("a ReCap");
        let expected = "(1) 'x': 'b', 'c' for 'a:1'. (2) 'y': 'a' for 'a:1'. (3) 'x': 'b' for 'a:2'.";
        assert_eq!(words(&capabilities), format!("{WORDS} {expected}"));
        assert_eq!(words(&[]), WORDS);
    }

    #[test]
    fn only_the_canonical_json_is_a_recap() {
        assert!(recap(r#"{"att":{},"prf":[]}"#).is_ok());
        for json in [
            r#"{"prf":[],"att":{}}"#,
            r#"{"att":{}, "prf":[]}"#,
            r#"{"att":{"b:1":{},"a:1":{}},"prf":[]}"#,
            r#"{"att":{"a:\u0031":{}},"prf":[]}"#,
            r#"{"att":{}}"#,
            r#"{"att":{},"prf":[],"more":1}"#,
        ] {
            assert!(recap(json).is_err(), "{json}");
        }
        let spare = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(r#"{"att":{},"prf":[]} "#));
        assert!(Recap::from_resource(&spare).is_err());
    }

    #[test]
    fn a_recap_has_no_caveats_and_only_uris() {
        for json in [
            r#"{"att":{"a:1":{"x/b":[]}},"prf":[]}"#,
            r#"{"att":{"a:1":{"x/b":[{},{}]}},"prf":[]}"#,
            r#"{"att":{"a:1":{"x/b":[{"c":1}]}},"prf":[]}"#,
            r#"{"att":{"a:1 2":{"x/b":[{}]}},"prf":[]}"#,
            r#"{"att":{"a":{"x/b":[{}]}},"prf":[]}"#,
            r#"{"att":{"a:1":{"x":[{}]}},"prf":[]}"#,
        ] {
            assert!(recap(json).and_then(|recap| recap.capabilities()).is_err(), "{json}");
        }
    }

    #[test]
    fn proofs_are_base58() {
        let address = Address::of(b"token");
        let base58 = Recap::new(&BTreeMap::new(), &[address]);
        assert_eq!(base58.proofs(), Ok(vec![address]));
        let base32 = Recap { att: BTreeMap::new(), prf: vec![address.to_string()] };
        assert_eq!(base32.proofs(), Err(TokenError::Proof));
    }
}
