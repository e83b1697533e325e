//! The bytes of epochs are frozen: what an independent script wrote is read, written again the same, or refused.

use ed25519_dalek::SigningKey;
use kvspace_protocol::epoch::{Epoch, Malformed, SignedEpoch};
use serde_json::Value;

const VECTORS: &str = include_str!("../../tests/vectors/epochs.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).expect("JSON")
}

fn text<'a>(vector: &'a Value, member: &str) -> &'a str {
    vector[member].as_str().unwrap_or_else(|| panic!("{member} is a text"))
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex");
    (0..text.len() / 2).map(byte).collect()
}

fn bytes(pieces: &Value) -> Vec<u8> {
    let piece = |piece: &Value| {
        let times = usize::try_from(piece[1].as_u64().expect("a number")).expect("small");
        unhex(piece[0].as_str().expect("hex")).repeat(times)
    };
    pieces.as_array().expect("pieces").iter().flat_map(piece).collect()
}

fn signed(vector: &Value) -> SignedEpoch {
    let signature = unhex(text(vector, "signature")).try_into().expect("64 bytes");
    SignedEpoch { header: bytes(&vector["header"]).into(), body: bytes(&vector["body"]).into(), signature }
}

#[test]
fn a_good_epoch_is_read_and_made_again_byte_for_byte() {
    for vector in vectors()["good"].as_array().expect("vectors") {
        let (name, signed) = (text(vector, "name"), signed(vector));
        let epoch = Epoch::decode(signed.clone()).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(epoch.id.to_string(), text(vector, "id"), "{name}");
        let header = epoch.header.clone();
        assert_eq!(header.space.as_str(), text(vector, "space"), "{name}");
        assert_eq!(
            (header.n.to_string(), header.seq.to_string()),
            (text(vector, "n").into(), text(vector, "seq").into())
        );
        assert_eq!(header.proof.map(|proof| proof.to_string()).as_deref(), vector["proof"].as_str(), "{name}");
        let tokens: Vec<_> =
            vector["tokens"].as_array().expect("tokens").iter().map(|t| unhex(t.as_str().expect("hex"))).collect();
        assert!(epoch.events.iter().map(|event| &event.token).eq(&tokens), "{name}");
        let seed: [u8; 32] = unhex(text(vector, "seed")).try_into().expect("32 bytes");
        let again = Epoch::sign(header, epoch.events, &SigningKey::from_bytes(&seed)).expect("well formed");
        assert_eq!((again.id, again.signed), (epoch.id, signed), "{name}");
    }
}

#[test]
fn a_bad_epoch_is_refused_for_what_is_wrong_with_it() {
    for vector in vectors()["bad"].as_array().expect("vectors") {
        let (name, expected) = (text(vector, "name"), text(vector, "why"));
        let why = match Epoch::decode(signed(vector)) {
            Ok(_) => panic!("{name} is taken"),
            Err(Malformed::UnknownVersion(_)) => "UnknownVersion",
            Err(Malformed::Decode(_)) => "Decode",
            Err(Malformed::NotCanonical) => "NotCanonical",
            Err(Malformed::TooLarge(_)) => "TooLarge",
            Err(Malformed::Shape(_)) => "Shape",
            Err(Malformed::Body) => "Body",
            Err(Malformed::Signature) => "Signature",
        };
        if expected == "any" {
            assert!(["Decode", "NotCanonical"].contains(&why), "{name}: {why}");
        } else {
            assert_eq!(why, expected, "{name}");
        }
    }
}
