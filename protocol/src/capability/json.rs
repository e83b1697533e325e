//! JSON with one meaning: no member is named twice in an object.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};

use super::TokenError;

/// Reads a `T` from a JSON object that names no member twice at any depth and nests at most 128 deep.
///
/// Of two members with one name, parsers take the first or the last as they like, so two hosts could read two tokens.
pub(super) fn read<'de, T: Deserialize<'de>>(part: &'static str, bytes: &'de [u8]) -> Result<T, TokenError> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(TokenError::Json { part, problem: "not an object".to_owned() });
    }
    let problem = |error: serde_json::Error| TokenError::Json { part, problem: error.to_string() };
    serde_json::from_slice::<Unambiguous>(bytes).map_err(problem)?;
    serde_json::from_slice(bytes).map_err(problem)
}

/// Any JSON without a repeated member name; its content is not kept.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Unambiguous;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unambiguous, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let _: Unambiguous = map.next_value()?;
            if !names.insert(name) {
                return Err(A::Error::custom("a member is named twice"));
            }
        }
        Ok(Unambiguous)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unambiguous, A::Error> {
        while seq.next_element::<Unambiguous>()?.is_some() {}
        Ok(Unambiguous)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_unit<E>(self) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn accepts(text: &str) -> bool {
        read::<Value>("test", text.as_bytes()).is_ok()
    }

    #[test]
    fn a_member_named_twice_is_refused_at_any_depth_and_in_any_spelling() {
        assert!(accepts(r#"{"a":1,"b":[{"a":2.5},{"a":null}],"c":true,"d":-1}"#));
        assert!(!accepts(r#"{"a":1,"a":1}"#));
        assert!(!accepts(r#"{"b":[{"a":1,"c":2,"a":3}]}"#));
        assert!(!accepts(r#"{"a":1,"\u0061":2}"#));
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(accepts(&format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100))));
        assert!(!accepts(&format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200))));
    }

    #[test]
    fn members_are_named_and_never_go_by_their_place() {
        assert!(read::<(u8,)>("test", b"[1]").is_err());
    }

    #[test]
    fn nothing_may_follow() {
        assert!(!accepts("{} {}"));
    }
}
