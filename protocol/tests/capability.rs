//! Tokens made by the reference's own SDK read, verify and come out again byte for byte.

use std::{collections::BTreeMap, fs};

use ed25519_dalek::SigningKey;
use k256::ecdsa::SigningKey as WalletKey;
use kvspace_protocol::{
    capability::{
        Ability, Content, Role, TERMINAL, Token, TokenError,
        build::{self, Claims, Siwe},
    },
    id::{Address, BlobHash, Did, EpochId, Identity, Millis},
};
use serde_json::Value;

/// 2024-01-01T00:00:00Z, when every SIWE message of the vectors was made.
const ISSUED_AT: Millis = Millis(1_704_067_200_000);
/// 2099-12-31T23:59:59Z.
const EXPIRATION: Millis = Millis(4_102_444_799_000);

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/tinycloud.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the vectors are there")).expect("the vectors are JSON")
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("{member} is text"))
}

fn hex<const N: usize>(digits: &str) -> [u8; N] {
    let byte = |i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hex digits");
    (0..digits.len() / 2).map(byte).collect::<Vec<u8>>().try_into().expect("the right length")
}

fn token(vector: &Value) -> Token {
    Token::from_header(text(vector, "header")).expect("a token")
}

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn did(text: &str) -> Did {
    text.parse().expect("a DID")
}

/// Signs the way wallets do: deterministically, with a recovery byte of 27 or 28.
fn wallet_signature(key: &[u8; 32], digest: &[u8; 32]) -> [u8; 65] {
    let key = WalletKey::from_slice(key).expect("a key");
    let (signature, recovery) = key.sign_prehash_recoverable(digest);
    let mut bytes = [0u8; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = 27 + recovery.to_byte();
    bytes
}

/// The `Authorization` headers of the steps, with the step.
fn steps(vectors: &Value) -> Vec<(&Value, &str)> {
    let header = |step: &'_ Value| -> Option<usize> {
        step["headers"].as_array()?.iter().position(|header| header[0] == "Authorization")
    };
    let steps = vectors["steps"].as_array().expect("a list");
    let with_header = steps.iter().filter_map(|step| Some((step, header(step)?)));
    with_header.map(|(step, at)| (step, step["headers"][at][1].as_str().expect("text"))).collect()
}

#[test]
fn a_cacao_has_the_address_identity_and_capabilities_the_reference_gives_it() {
    let vectors = vectors();
    for name in ["host_delegation", "session_delegation", "narrow_delegation"] {
        let vector = &vectors[name];
        let token = token(vector);
        assert_eq!(token.address().to_string(), text(vector, "cid"), "{name}");
        assert_eq!(token.bytes(), &hex_bytes(text(vector, "bytes_hex")), "{name}");
        assert_eq!(token.identity(), Identity::of(text(vector, "siwe").as_bytes()), "{name}");
        assert_eq!(token.to_header(), text(vector, "header"), "{name}");
        assert_eq!(token.role(), Role::Delegation, "{name}");
        assert_eq!(token.issuer().as_str(), text(&vectors["owner"], "did"), "{name}");
        assert!(token.proofs().is_empty(), "{name}");
        let recap: Value = serde_json::from_str(text(vector, "recap_json")).expect("JSON");
        assert_eq!(granted(&token), expected_grants(&recap["att"]), "{name}");
        token.verify().expect("the signature holds");
    }
}

fn hex_bytes(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2).map(|i| hex::<1>(&digits[2 * i..2 * i + 2])[0]).collect()
}

fn granted(token: &Token) -> Vec<(String, String)> {
    token.capabilities().iter().map(|c| (c.resource.text().to_owned(), c.ability.to_string())).collect()
}

fn expected_grants(att: &Value) -> Vec<(String, String)> {
    let mut grants = Vec::new();
    for (resource, abilities) in att.as_object().expect("a map") {
        grants.extend(abilities.as_object().expect("a map").keys().map(|name| (resource.clone(), name.clone())));
    }
    grants
}

#[test]
fn fragments_and_times_are_read_as_the_reference_does() {
    let vectors = vectors();
    let session = token(&vectors["session_delegation"]);
    assert_eq!(session.audience(), text(&vectors["session_key"], "did"));
    assert_eq!(session.audience_did(), Some(&did(text(&vectors["session_key"], "did"))));
    assert_eq!((session.not_before(), session.expiry()), (None, Some(EXPIRATION)));
    assert!(session.in_force(EXPIRATION) && !session.in_force(EXPIRATION.plus(1)));
    let bob = token(&vectors["bob_delegation"]);
    assert_eq!(bob.role(), Role::Delegation);
    assert_eq!(bob.issuer(), &did(text(&vectors["session_key"], "did")));
    assert_eq!(bob.expiry(), Some(Millis(4_070_908_800_000)));
    assert_eq!(bob.proofs(), [session.address()]);
    assert_eq!(bob.address().to_string(), text(&vectors["bob_delegation"], "cid"));
    let (signed, _) = text(&vectors["bob_delegation"], "header").rsplit_once('.').expect("a JWT");
    assert_eq!(bob.identity(), Identity::of(signed.as_bytes()));
}

#[test]
fn a_wallet_revokes_by_its_audience() {
    let vectors = vectors();
    let token = token(&vectors["revocation_cacao"]);
    let target = address(text(&vectors["bob_delegation"], "cid"));
    assert_eq!(token.role(), Role::Revocation { target });
    assert_eq!(token.audience(), format!("ucan:{target}"));
    assert_eq!(token.audience_did(), None);
    assert!(token.capabilities().is_empty());
    token.verify().expect("the signature holds");
}

/// What can become of a token before anybody asks what it may do.
#[derive(Debug, PartialEq)]
enum Outcome {
    Verifies,
    BadSignature,
    Undecodable,
}

fn outcome(header: &str) -> Outcome {
    match Token::from_header(header).map(Token::verify) {
        Ok(Ok(_)) => Outcome::Verifies,
        Ok(Err(_)) => Outcome::BadSignature,
        Err(_) => Outcome::Undecodable,
    }
}

#[test]
fn every_step_of_the_reference_has_the_outcome_it_had_there() {
    let vectors = vectors();
    let steps = steps(&vectors);
    assert!(steps.len() > 30, "{}", steps.len());
    for (step, header) in steps {
        let expected = match (step["expect"]["status"].as_u64(), step["expect"]["body"].as_str()) {
            (Some(401), Some("Failed to verify signature")) => Outcome::BadSignature,
            (Some(401), None) => Outcome::Undecodable,
            _ => Outcome::Verifies,
        };
        assert_eq!(outcome(header), expected, "{}", step["name"]);
    }
}

#[test]
fn the_role_of_every_step_follows_from_its_token() {
    let vectors = vectors();
    for (step, header) in steps(&vectors) {
        let name = text(step, "name");
        let Ok(token) = Token::from_header(header) else { continue };
        match text(step, "path") {
            "/delegate" => assert_eq!(token.role(), Role::Delegation, "{name}"),
            "/revoke" => assert!(matches!(token.role(), Role::Revocation { .. }), "{name}"),
            _ if name == "wrong_aud_claim" => assert_eq!(token.role(), Role::Delegation),
            _ => assert_eq!(token.role(), Role::Invocation, "{name}"),
        }
        let stored = Token::from_stored(token.bytes().clone()).expect("it reads back");
        assert_eq!((&stored, stored.identity()), (&token, token.identity()), "{name}");
    }
}

fn siwe(vectors: &Value, uri: &str, nonce: &str) -> Siwe {
    Siwe {
        domain: "localhost".into(),
        chain_id: 1,
        address: hex(&text(&vectors["owner"], "address")[2..]),
        uri: uri.into(),
        nonce: nonce.into(),
        issued_at: ISSUED_AT,
        expiration: None,
        not_before: None,
        statement: None,
        resources: Vec::new(),
        capabilities: BTreeMap::new(),
        proofs: Vec::new(),
    }
}

fn signed(vectors: &Value, siwe: &Siwe) -> String {
    let key = hex(text(&vectors["owner"], "eth_private_key_hex"));
    siwe.sign(wallet_signature(&key, &siwe.digest())).expect("a token").to_header()
}

fn abilities(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_tokens_of_the_sdk_can_be_made_byte_for_byte() {
    let vectors = vectors();
    let space = text(&vectors, "space_id");

    let mut host = siwe(&vectors, text(&vectors, "space_peer_did"), "hostnonce00000001");
    host.capabilities = BTreeMap::from([(format!("{space}/space"), abilities(&[Ability::HOST]))]);
    assert_eq!(host.text(), text(&vectors["host_delegation"], "siwe"));
    assert_eq!(host.digest(), hex(text(&vectors["host_delegation"], "eip191_hash_hex")));
    assert_eq!(signed(&vectors, &host), text(&vectors["host_delegation"], "header"));

    let session_url = text(&vectors["session_key"], "verification_method");
    let mut session = siwe(&vectors, session_url, "sessnonce00000001");
    session.expiration = Some(EXPIRATION);
    let kv = [Ability::PUT, Ability::GET, Ability::LIST, Ability::DEL, Ability::METADATA];
    session.capabilities = BTreeMap::from([
        (format!("{space}/kv"), abilities(&kv)),
        (format!("{space}/capabilities/all"), abilities(&[Ability::CAPABILITIES_READ])),
    ]);
    assert_eq!(session.text(), text(&vectors["session_delegation"], "siwe"));
    assert_eq!(signed(&vectors, &session), text(&vectors["session_delegation"], "header"));

    let target = format!("ucan:{}", text(&vectors["bob_delegation"], "cid"));
    let mut revocation = siwe(&vectors, &target, "revokenonce000001");
    revocation.statement = Some("Revoke delegation.".into());
    assert_eq!(signed(&vectors, &revocation), text(&vectors["revocation_cacao"], "header"));
}

#[test]
fn a_ucan_of_the_sdk_can_be_made_byte_for_byte() {
    let vectors = vectors();
    let key = SigningKey::from_bytes(&hex(text(&vectors["session_key"], "seed_hex")));
    let mut claims = Claims::until(Millis(4_070_908_800_000));
    claims.audience = Some(did(text(&vectors["bob_key"], "did")));
    claims.nonce = Some("urn:uuid:00000000-0000-4000-8000-0000000000b0".into());
    claims.proofs = vec![address(text(&vectors["session_delegation"], "cid"))];
    let docs = format!("{}/kv/docs", text(&vectors, "space_id"));
    claims.capabilities = BTreeMap::from([(docs, abilities(&[Ability::GET]))]);
    let token = build::ucan(&claims, &key).expect("a token");
    assert_eq!(token.to_header(), text(&vectors["bob_delegation"], "header"));
}

#[test]
fn claims_that_make_no_token_are_refused() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let mut claims = Claims::until(Millis(0));
    claims.capabilities = BTreeMap::from([("urn:x:y".into(), abilities(&["no ability"]))]);
    assert!(matches!(build::ucan(&claims, &key), Err(TokenError::Ability(_))));
    claims.capabilities = BTreeMap::from([(format!("urn:x:{}", "y".repeat(70_000)), abilities(&["a/b"]))]);
    assert_eq!(build::ucan(&claims, &key), Err(TokenError::TooLong));
}

#[test]
fn the_bounds_of_a_ucan_belong_to_it_and_the_beginning_of_a_cacao_does_not() {
    let (from, until) = (Millis(1000), Millis(2000));
    let mut claims = Claims::until(until);
    claims.not_before = Some(from);
    let ucan = build::ucan(&claims, &SigningKey::from_bytes(&[1; 32])).expect("a token");
    let mut message = siwe(&vectors(), "https://app.example", "nonce0001");
    (message.not_before, message.expiration) = (Some(from), Some(until));
    let cacao = message.sign([0; 65]).expect("a token");
    for (now, in_ucan, in_cacao) in [(999, false, false), (1000, true, false), (1001, true, true), (2000, true, true)] {
        assert_eq!((ucan.in_force(Millis(now)), cacao.in_force(Millis(now))), (in_ucan, in_cacao), "{now}");
    }
    assert!(!ucan.in_force(Millis(2001)) && !cacao.in_force(Millis(2001)));
    message.expiration = None;
    assert!(message.sign([0; 65]).expect("a token").in_force(Millis(i64::MAX)));
}

#[test]
fn what_is_built_reads_back() {
    let vectors = vectors();
    let space = text(&vectors, "space_id");
    let epoch = EpochId::of(b"epoch");
    let mark = format!("{space}/after/{epoch}");
    let put = format!("{space}/kv/a");
    let meta = BTreeMap::from([("content-type".to_owned(), "text/plain".to_owned())]);
    let content = BTreeMap::from([(put.clone(), Content { cid: BlobHash::of(b"value"), size: 5, meta })]);
    let mut claims = Claims::until(Millis(1_700_000_000_001));
    claims.not_before = Some(Millis(-1));
    claims.capabilities = BTreeMap::from([(put, abilities(&[Ability::PUT]))]);
    claims.content = Some(content.clone());
    claims.after = vec![mark.clone()];
    claims.facts = vec![serde_json::json!({ TERMINAL: "terminal" })];
    let token = build::ucan(&claims, &SigningKey::from_bytes(&[1; 32])).expect("a token");
    let space_id = space.parse().expect("a space");
    assert_eq!((token.not_before(), token.expiry()), (Some(Millis(-1)), Some(Millis(1_700_000_000_001))));
    assert_eq!(token.content(), Some(&content));
    assert_eq!(token.after(&space_id), Some([epoch].as_slice()));
    assert_eq!((token.is_terminal(), token.facts().len(), token.role()), (true, 3, Role::Invocation));
    token.clone().verify().expect("the signature holds");

    let mut message = siwe(&vectors, "did:key:z6Mk#z6Mk", "nonce0001");
    message.resources = vec![mark];
    message.proofs = vec![token.address()];
    let other = Token::from_header(&signed(&vectors, &message)).expect("a token");
    assert_eq!((other.after(&space_id), other.proofs()), (Some([epoch].as_slice()), [token.address()].as_slice()));
    other.verify().expect("the signature holds");
}
