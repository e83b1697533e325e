//! The text a wallet shows and signs: Sign-In with Ethereum (EIP-4361).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{TokenError, time};
use crate::{
    id::{Did, Millis},
    uri,
};

/// The fields of a SIWE message, in the order of canonical CBOR. Timestamps are kept as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) aud: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<String>,
    pub(super) iat: String,
    pub(super) iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<String>,
    pub(super) nonce: String,
    pub(super) domain: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scheme: Option<String>,
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) resources: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) statement: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<String>,
}

/// A message whose every field holds what its name says, so that its text can be read in one way only.
pub(super) struct Checked {
    pub(super) issuer: Did,
    pub(super) address: [u8; 20],
    pub(super) not_before: Option<Millis>,
    pub(super) expiry: Option<Millis>,
    pub(super) text: String,
}

impl Message {
    /// Checks every field and lays out the text.
    ///
    /// No field can hold a line break, so none can pass for another; with that, message and text are one to one.
    pub(super) fn check(&self) -> Result<Checked, TokenError> {
        let held = |holds: bool, field| if holds { Ok(()) } else { Err(TokenError::Field(field)) };
        held(self.version == 1, "version")?;
        held(self.scheme.as_deref().is_none_or(uri::is_scheme), "scheme")?;
        held(uri::is_authority(&self.domain), "domain")?;
        held(uri::is_uri(&self.aud), "aud")?;
        held(self.nonce.len() >= 8 && self.nonce.bytes().all(|byte| byte.is_ascii_alphanumeric()), "nonce")?;
        held(self.statement.as_deref().is_none_or(is_line), "statement")?;
        held(self.request_id.as_deref().is_none_or(uri::is_normal_path), "request_id")?;
        held(self.resources.iter().all(|resource| uri::is_uri(resource)), "resources")?;
        time::from_rfc3339(&self.iat).ok_or(TokenError::Field("iat"))?;
        let issuer: Did = self.iss.parse().map_err(|_| TokenError::Field("iss"))?;
        held(issuer.as_str() == self.iss, "iss")?;
        let (chain_id, address) = issuer.eip155().ok_or(TokenError::Field("iss"))?;
        Ok(Checked {
            text: self.text(chain_id, address_text(&issuer)),
            not_before: optional_time(self.nbf.as_deref(), "nbf")?,
            expiry: optional_time(self.exp.as_deref(), "exp")?,
            issuer,
            address,
        })
    }

    /// The text as EIP-4361 lays it out. Without a statement the two blank lines around it stay.
    pub(super) fn text(&self, chain_id: u64, address: &str) -> String {
        let mut text = String::new();
        self.write(&mut text, chain_id, address).expect("writing to a string does not fail");
        text
    }

    fn write(&self, text: &mut String, chain_id: u64, address: &str) -> std::fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(text, "{scheme}://")?;
        }
        writeln!(text, "{} wants you to sign in with your Ethereum account:\n{address}\n", self.domain)?;
        if let Some(statement) = &self.statement {
            writeln!(text, "{statement}")?;
        }
        write!(text, "\nURI: {}\nVersion: {}\nChain ID: {chain_id}", self.aud, self.version)?;
        write!(text, "\nNonce: {}\nIssued At: {}", self.nonce, self.iat)?;
        if let Some(exp) = &self.exp {
            write!(text, "\nExpiration Time: {exp}")?;
        }
        if let Some(nbf) = &self.nbf {
            write!(text, "\nNot Before: {nbf}")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(text, "\nRequest ID: {request_id}")?;
        }
        if !self.resources.is_empty() {
            text.push_str("\nResources:");
        }
        self.resources.iter().try_for_each(|resource| write!(text, "\n- {resource}"))
    }
}

/// The `0x…` part of a did:pkh.
fn address_text(did: &Did) -> &str {
    did.as_str().rsplit_once(':').map_or("", |(_, address)| address)
}

/// One line of text with something in it.
fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

fn optional_time(text: Option<&str>, field: &'static str) -> Result<Option<Millis>, TokenError> {
    text.map(|text| time::from_rfc3339(text).ok_or(TokenError::Field(field))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            aud: "did:key:z6Mk#z6Mk".into(),
            iat: "2024-01-01T00:00:00.000Z".into(),
            iss: "did:pkh:eip155:1:0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266".into(),
            nonce: "abcdefgh".into(),
            domain: "localhost:3000".into(),
            version: 1,
            ..Message::default()
        }
    }

    const HEAD: &str = "localhost:3000 wants you to sign in with your Ethereum account:\n\
        0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\n\n";
    const TAIL: &str = "\nURI: did:key:z6Mk#z6Mk\nVersion: 1\nChain ID: 1\nNonce: abcdefgh\n\
        Issued At: 2024-01-01T00:00:00.000Z";

    #[test]
    fn blank_lines_stay_where_there_is_no_statement() {
        assert_eq!(message().check().map(|checked| checked.text), Ok(format!("{HEAD}{TAIL}")));
    }

    #[test]
    fn every_field_has_its_line() {
        let full = Message {
            scheme: Some("https".into()),
            statement: Some("Sign in.".into()),
            exp: Some("2024-01-02T00:00:00Z".into()),
            nbf: Some("2024-01-01T00:00:00Z".into()),
            request_id: Some("id-1".into()),
            resources: vec!["https://a.example".into(), "urn:x:y".into()],
            ..message()
        };
        let more = "\nExpiration Time: 2024-01-02T00:00:00Z\nNot Before: 2024-01-01T00:00:00Z\nRequest ID: id-1\n\
            Resources:\n- https://a.example\n- urn:x:y";
        assert_eq!(full.check().map(|checked| checked.text), Ok(format!("https://{HEAD}Sign in.\n{TAIL}{more}")));
    }

    #[test]
    fn a_field_that_could_pass_for_another_is_refused() {
        let line = "x\nURI: did:key:other";
        let refused = |change: fn(&mut Message, String), text: &str| {
            let mut changed = message();
            change(&mut changed, text.into());
            assert!(changed.check().is_err(), "{changed:?}");
        };
        for text in [line, "x\ry", "x\u{0}y", "x\u{85}y", "x\u{2028}y", ""] {
            refused(|m, text| m.statement = Some(text), text);
            refused(|m, text| m.domain = text, text);
            refused(|m, text| m.scheme = Some(text), text);
            refused(|m, text| m.aud = text, text);
            refused(|m, text| m.nonce = text, text);
            refused(|m, text| m.iat = text, text);
            refused(|m, text| m.exp = Some(text), text);
            refused(|m, text| m.nbf = Some(text), text);
            refused(|m, text| m.resources = vec![text], text);
            refused(|m, text| m.iss = text, text);
        }
        refused(|m, text| m.request_id = Some(text), line);
        refused(|m, text| m.domain = text, "https://localhost");
        refused(|m, text| m.nonce = text, "short77");
        refused(|m, text| m.iss = text, "did:pkh:eip155:1:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        refused(|m, text| m.iss = text, "did:key:z6Mk");
    }

    #[test]
    fn only_version_1_is_known() {
        assert!(Message { version: 2, ..message() }.check().is_err());
    }
}
