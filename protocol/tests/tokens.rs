//! Tokens made by an independent generator, `scripts/vectors/tokens.py`, read as it says they should.

use std::{collections::BTreeMap, fs};

use kvspace_protocol::{
    capability::{Capability, Content, Role, Token},
    id::{EpochId, SpaceId},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    tokens: Vec<Case>,
    coverage: Vec<Pair>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    header: String,
    outcome: Outcome,
    error: Option<String>,
    #[serde(flatten)]
    fields: Option<Fields>,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Verifies,
    BadSignature,
    Refused,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Fields {
    address: String,
    identity: String,
    role: NamedRole,
    issuer: String,
    audience: String,
    capabilities: Vec<(String, String)>,
    proofs: Vec<String>,
    not_before: Option<i64>,
    expiry: Option<i64>,
    terminal: bool,
    after: BTreeMap<SpaceId, Vec<EpochId>>,
    content: Option<BTreeMap<String, Content>>,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
enum NamedRole {
    Delegation,
    Invocation,
    Revocation(String),
}

#[derive(Deserialize)]
struct Pair {
    parent: String,
    child: String,
    covered: bool,
}

fn vectors() -> Vectors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/tokens.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the vectors are there")).expect("they have this shape")
}

/// What the token says, as the vectors write it. The spaces of `after` can only be asked for by name.
fn fields(token: &Token, expected: &Fields) -> Fields {
    let role = match token.role() {
        Role::Delegation => NamedRole::Delegation,
        Role::Invocation => NamedRole::Invocation,
        Role::Revocation { target } => NamedRole::Revocation(target.to_string()),
    };
    let after = |space: &SpaceId| Some((space.clone(), token.after(space)?.to_vec()));
    let granted = |c: &Capability| (c.resource.text().to_owned(), c.ability.to_string());
    Fields {
        address: token.address().to_string(),
        identity: token.identity().0.iter().map(|byte| format!("{byte:02x}")).collect(),
        role,
        issuer: token.issuer().to_string(),
        audience: token.audience().to_owned(),
        capabilities: token.capabilities().iter().map(granted).collect(),
        proofs: token.proofs().iter().map(ToString::to_string).collect(),
        not_before: token.not_before().map(|at| at.0),
        expiry: token.expiry().map(|at| at.0),
        terminal: token.is_terminal(),
        after: expected.after.keys().filter_map(after).collect(),
        content: token.content().cloned(),
    }
}

#[test]
fn every_token_has_the_outcome_and_the_fields_it_should() {
    let cases = vectors().tokens;
    assert!(cases.len() > 150, "{}", cases.len());
    for Case { name, header, outcome, error, fields: expected } in cases {
        let token = match Token::from_header(&header) {
            Ok(token) => token,
            Err(found) => {
                assert_eq!(outcome, Outcome::Refused, "{name}: {found}");
                let error = error.expect("a refused token has its error");
                assert!(format!("{found:?}").starts_with(&error), "{name}: {found:?}, not {error}");
                continue;
            }
        };
        assert!(expected.is_some() || outcome != Outcome::Verifies, "{name}: no fields");
        if let Some(expected) = expected {
            assert_eq!(fields(&token, &expected), expected, "{name}");
        }
        assert_eq!(token.to_header(), header, "{name}");
        assert_eq!(Token::from_stored(token.bytes().clone()).as_ref(), Ok(&token), "{name}");
        let found = if token.verify().is_ok() { Outcome::Verifies } else { Outcome::BadSignature };
        assert_eq!(found, outcome, "{name}");
    }
}

#[test]
fn a_child_is_covered_when_each_of_its_capabilities_is() {
    let Vectors { tokens, coverage } = vectors();
    let token = |name: &str| {
        let case = tokens.iter().find(|case| case.name == name).expect("a token of this name");
        Token::from_header(&case.header).expect("a token")
    };
    for Pair { parent, child, covered } in coverage {
        let (held, asked) = (token(&parent), token(&child));
        let by_one = |asked: &Capability| held.capabilities().iter().any(|held| held.covers(asked));
        assert_eq!(asked.capabilities().iter().all(by_one), covered, "{parent} over {child}");
    }
}
