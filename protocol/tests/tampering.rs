//! What was changed on the way does not verify, and one signed statement keeps one identity.

use std::fs;

use base64::{
    Engine as _,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use k256::ecdsa::Signature;
use kvspace_protocol::capability::{Token, TokenError};
use proptest::prelude::*;
use serde_json::Value;

/// The order of secp256k1.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

fn token(name: &str) -> Token {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/tinycloud.json");
    let vectors: Value =
        serde_json::from_str(&fs::read_to_string(path).expect("the vectors are there")).expect("they are JSON");
    Token::from_header(vectors[name]["header"].as_str().expect("text")).expect("a token")
}

fn verifies(bytes: Vec<u8>) -> bool {
    Token::from_stored(bytes.into()).is_ok_and(|token| token.verify().is_ok())
}

#[test]
fn no_flipped_bit_leaves_a_token_that_verifies() {
    for name in ["session_delegation", "revocation_cacao", "bob_delegation"] {
        let bytes = token(name).bytes().to_vec();
        assert!(verifies(bytes.clone()), "{name}");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!verifies(flipped), "{name}: bit {bit}");
        }
    }
}

#[test]
fn no_flipped_bit_of_a_header_leaves_one_that_verifies() {
    for name in ["host_delegation", "bob_delegation"] {
        let header = token(name).to_header().into_bytes();
        for bit in 0..header.len() * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(text) = String::from_utf8(flipped) else { continue };
            assert!(!Token::from_header(&text).is_ok_and(|token| token.verify().is_ok()), "{name}: bit {bit}");
        }
    }
}

/// The CACAO with other signature bytes; they end seven bytes before its end, with `t: "eip191"` after them.
fn resigned(token: &Token, change: impl Fn(&mut [u8])) -> Token {
    let mut bytes = token.bytes().to_vec();
    let end = bytes.len() - b"\x61t\x66eip191".len();
    change(&mut bytes[end - 65..end]);
    Token::from_stored(bytes.into()).expect("a CACAO")
}

#[test]
fn the_recovery_byte_has_two_spellings_of_one_statement() {
    let token = token("session_delegation");
    let lower = resigned(&token, |signature| signature[64] -= 27);
    assert_eq!(lower.identity(), token.identity());
    assert_ne!(lower.address(), token.address());
    lower.verify().expect("0 and 1 mean 27 and 28");
    for recovery in [2u8, 3, 26, 29, 30, 54, 55, 255] {
        assert!(resigned(&token, |signature| signature[64] = recovery).verify().is_err(), "{recovery}");
    }
}

#[test]
fn the_higher_of_the_two_values_of_s_is_refused() {
    let token = token("session_delegation");
    let high = resigned(&token, |signature| {
        let s: [u8; 32] = signature[32..64].try_into().expect("32 bytes");
        signature[32..64].copy_from_slice(&subtract(ORDER, s));
        signature[64] = 27 + 28 - signature[64];
        let high = Signature::from_slice(&signature[..64]).expect("still a signature");
        assert_ne!(high.normalize_s(), high);
    });
    assert!(high.verify().is_err());
}

fn subtract(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let mut out = [0u8; 32];
    let mut borrow = 0i16;
    for i in (0..32).rev() {
        let digit = i16::from(a[i]) - i16::from(b[i]) - borrow;
        borrow = i16::from(digit < 0);
        out[i] = u8::try_from(digit.rem_euclid(256)).expect("a byte");
    }
    out
}

#[test]
fn base64_has_one_spelling() {
    let session = token("session_delegation").to_header();
    let unpadded = URL_SAFE_NO_PAD.encode(URL_SAFE.decode(&session).expect("base64"));
    assert_ne!(unpadded, session, "the vector has padding");
    assert_eq!(Token::from_header(&unpadded), Err(TokenError::Base64("the token")));
    let spare = session.replace("E=", "F=").replace("Q==", "R==").replace("g==", "h==").replace("w==", "x==");
    assert_ne!(spare, session);
    assert_eq!(Token::from_header(&spare), Err(TokenError::Base64("the token")));

    let ucan = token("bob_delegation").to_header();
    assert_eq!(Token::from_header(&format!("{ucan}==")), Err(TokenError::Base64("the signature")));
    let (rest, last) = ucan.split_at(ucan.len() - 1);
    let spare = match last {
        "A" => "B",
        "Q" => "R",
        "g" => "h",
        _ => "x",
    };
    assert_eq!(Token::from_header(&format!("{rest}{spare}")), Err(TokenError::Base64("the signature")));
    assert_eq!(Token::from_header(&format!("{ucan}.")), Err(TokenError::Parts));
    assert_eq!(Token::from_header(&format!("Bearer {ucan}")), Err(TokenError::Base64("the header")));
}

#[test]
fn a_token_has_an_end() {
    let mut bytes = token("session_delegation").bytes().to_vec();
    bytes.push(0);
    assert!(Token::from_stored(bytes.into()).is_err());
    assert_eq!(Token::from_stored(Bytes::new()), Err(TokenError::Parts));
    let long = vec![b'a'; 70_000];
    assert_eq!(Token::from_stored(long.into()), Err(TokenError::TooLong));
    assert_eq!(Token::from_header(&"a".repeat(100_000)), Err(TokenError::TooLong));
}

proptest! {
    #[test]
    fn no_input_makes_the_reader_stumble(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,100}") {
        let _ = Token::from_stored(bytes.clone().into());
        let _ = Token::from_header(&text);
        let _ = Token::from_header(&URL_SAFE.encode([&[0xa3], bytes.as_slice()].concat()));
    }

    #[test]
    fn a_spliced_token_does_not_verify(from in 0usize..1200, cut in 0usize..40, put in prop::collection::vec(any::<u8>(), 0..40)) {
        let bytes = token("session_delegation").bytes().to_vec();
        let from = from.min(bytes.len());
        let to = (from + cut).min(bytes.len());
        let mut spliced = bytes.clone();
        spliced.splice(from..to, put);
        prop_assert!(spliced == bytes || !verifies(spliced));
    }
}
