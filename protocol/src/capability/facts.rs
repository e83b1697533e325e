//! What a token says beside its capabilities: facts that this protocol knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TokenError;
use crate::id::{BlobHash, EpochId, SpaceId};

/// The fact that forbids to delegate further: its value is `"terminal"`.
pub const TERMINAL: &str = "xyz.tinycloud.policy/delegationMode";
/// The fact that signs the values of a token's puts.
pub(super) const CONTENT: &str = "kvspace/content";
/// The fact that names the frontier its signer had seen.
pub(super) const AFTER: &str = "kvspace/after";
/// The service under which an epoch is a resource: `<space>/after/<epoch cid>`.
const AFTER_SERVICE: &str = "after";

/// What a put stores, as its signer says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The hash of the value.
    pub cid: BlobHash,
    /// Its length, in bytes.
    pub size: u64,
    /// Every header stored with it.
    pub meta: BTreeMap<String, String>,
}

/// Epochs by space, ascending.
pub(super) type After = BTreeMap<SpaceId, Vec<EpochId>>;

/// The facts of a token, with those this protocol knows read out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) values: Vec<Value>,
    pub(super) is_terminal: bool,
    pub(super) content: Option<BTreeMap<String, Content>>,
    pub(super) after: After,
}

impl Facts {
    /// Reads the `fct` member of a UCAN: an array, one object, or nothing.
    pub(super) fn read(fct: Option<Value>) -> Result<Self, TokenError> {
        let values = match fct {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(one @ Value::Object(_)) => vec![one],
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => return Err(TokenError::Field("fct")),
        };
        let is_terminal = named(&values, TERMINAL).any(|mode| mode == "terminal");
        let content = one(&values, CONTENT)?.map(read_content).transpose()?;
        let after = one(&values, AFTER)?.map(read_after).transpose()?.unwrap_or_default();
        Ok(Self { values, is_terminal, content, after })
    }

    /// The facts of a CACAO, which are the `after` resources of its SIWE message.
    pub(super) fn of_resources(resources: &[String]) -> Result<Self, TokenError> {
        let marks = resources.iter().map(String::as_str).filter(|text| means_a_mark(text));
        Ok(Self { after: collect(marks)?, ..Self::default() })
    }
}

fn named<'a>(values: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    values.iter().filter_map(move |value| value.get(name))
}

/// The fact of this name. It stands in a token once, so that nobody has to guess how two of them would add up.
fn one<'a>(values: &'a [Value], name: &'static str) -> Result<Option<&'a Value>, TokenError> {
    let mut found = named(values, name);
    let first = found.next();
    if found.next().is_some() { Err(TokenError::Fact(name)) } else { Ok(first) }
}

fn read_content(value: &Value) -> Result<BTreeMap<String, Content>, TokenError> {
    let values: BTreeMap<String, Map<String, Value>> =
        BTreeMap::deserialize(value).map_err(|_| TokenError::Fact(CONTENT))?;
    let read = |(resource, members)| Some((resource, Content::deserialize(Value::Object(members)).ok()?));
    values.into_iter().map(read).collect::<Option<_>>().ok_or(TokenError::Fact(CONTENT))
}

fn read_after(value: &Value) -> Result<After, TokenError> {
    let texts: Vec<&str> = Vec::deserialize(value).map_err(|_| TokenError::Fact(AFTER))?;
    collect(texts.into_iter())
}

fn collect<'a>(texts: impl Iterator<Item = &'a str>) -> Result<After, TokenError> {
    let mut after = After::new();
    for text in texts {
        let (space, epoch) = read_mark(text).ok_or(TokenError::Fact(AFTER))?;
        after.entry(space).or_default().push(epoch);
    }
    for epochs in after.values_mut() {
        epochs.sort_unstable();
        epochs.dedup();
    }
    Ok(after)
}

/// Whether a resource is meant to name an epoch, well or badly.
fn means_a_mark(resource: &str) -> bool {
    let service = |rest: &str| rest.split(['/', '?', '#']).next() == Some(AFTER_SERVICE);
    resource.starts_with("tinycloud:") && resource.split_once('/').is_some_and(|(_, rest)| service(rest))
}

/// Reads `<space>/after/<epoch cid>`.
fn read_mark(text: &str) -> Option<(SpaceId, EpochId)> {
    let (space, rest) = text.split_once('/')?;
    let epoch = rest.strip_prefix(AFTER_SERVICE)?.strip_prefix('/')?;
    Some((space.parse().ok()?, epoch.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SPACE: &str = "tinycloud:key:z6Mk:default";

    #[test]
    fn content_is_read_or_refused_and_never_passed_over() {
        let cid = BlobHash::of(b"value").to_string();
        let good = json!([{"kvspace/content": {"r": {"cid": cid, "size": 5, "meta": {"a": "b"}}}}]);
        let content = Facts::read(Some(good)).expect("facts").content.expect("content");
        assert_eq!(content["r"].size, 5);
        for bad in [
            json!(null),
            json!([]),
            json!({"r": {"cid": cid, "size": 5}}),
            json!({"r": {"cid": cid, "size": "5", "meta": {}}}),
            json!({"r": {"cid": cid, "size": -5, "meta": {}}}),
            json!({"r": {"cid": cid, "size": 5.0, "meta": {}}}),
            json!({"r": [cid, 5, {}]}),
            json!({"r": {"cid": "bafk", "size": 5, "meta": {}}}),
            json!({"r": {"cid": EpochId::of(b"x").to_string(), "size": 5, "meta": {}}}),
            json!({"r": {"cid": cid, "size": 5, "meta": {"a": 1}}}),
            json!({"r": {"cid": cid, "size": 5, "meta": {}, "more": 1}}),
        ] {
            let facts = Facts::read(Some(json!([{ CONTENT: bad.clone() }])));
            assert_eq!(facts, Err(TokenError::Fact(CONTENT)), "{bad}");
        }
    }

    #[test]
    fn the_frontier_is_sorted_and_counted_once() {
        let mut epochs = [EpochId::of(b"1"), EpochId::of(b"2")];
        epochs.sort_unstable();
        let mark = |epoch: EpochId| format!("{SPACE}/after/{epoch}");
        let fact = json!({ AFTER: [mark(epochs[1]), mark(epochs[0]), mark(epochs[1])] });
        let facts = Facts::read(Some(fact)).expect("facts");
        assert_eq!(facts.after, After::from([(SPACE.parse().expect("a space"), epochs.to_vec())]));
    }

    #[test]
    fn a_malformed_frontier_is_refused() {
        let blob = BlobHash::of(b"1");
        let epoch = EpochId::of(b"1");
        for bad in [
            json!(null),
            json!("text"),
            json!([1]),
            json!([""]),
            json!([format!("{SPACE}/after/{blob}")]),
            json!([format!("{SPACE}/after/{epoch}/")]),
            json!([format!("{SPACE}/kv/{epoch}")]),
            json!([format!("urn:x/after/{epoch}")]),
        ] {
            let facts = Facts::read(Some(json!([{ AFTER: bad.clone() }])));
            assert_eq!(facts, Err(TokenError::Fact(AFTER)), "{bad}");
        }
        for bad in [
            format!("{SPACE}/after/{blob}"),
            format!("{SPACE}/after"),
            format!("{SPACE}/after?{epoch}"),
            format!("tinycloud:/after/{epoch}"),
            format!("{SPACE}/after/%2f"),
        ] {
            assert_eq!(Facts::of_resources(&[bad]), Err(TokenError::Fact(AFTER)));
        }
        assert_eq!(Facts::of_resources(&["https://app.example".to_owned()]), Ok(Facts::default()));
    }

    #[test]
    fn a_known_fact_stands_once() {
        let twice = json!([{ AFTER: [] }, { AFTER: [] }]);
        assert_eq!(Facts::read(Some(twice)), Err(TokenError::Fact(AFTER)));
    }

    #[test]
    fn facts_of_any_other_kind_are_kept() {
        let facts = Facts::read(Some(json!([{"x": 1}, "text", {TERMINAL: "terminal"}]))).expect("facts");
        assert_eq!((facts.values.len(), facts.is_terminal), (3, true));
        assert!(!Facts::read(Some(json!({TERMINAL: "other"}))).expect("facts").is_terminal);
        assert_eq!(Facts::read(Some(json!("text"))), Err(TokenError::Field("fct")));
    }
}
